"""The ledger's tables. What the code assumes about a row is a constraint here.

Sealed columns hold `uplift.sealing` values under the user's data key. `docs/privacy.md` describes
every column. Migrations are in `migrations/`; a test keeps both equal.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SQLColumnExpression,
    Text,
    UniqueConstraint,
    bindparam,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from uplift.ledger.xid8 import Xid8
from uplift.lifecycle import UNFINISHED, State


def _one_of(column: str, values: Iterable[str]) -> str:
    quoted = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({quoted})"


class Table(DeclarativeBase):
    """The base of all tables. Every constraint has a name, so that migrations can use it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  the shape that SQLAlchemy asks for
        datetime: DateTime(timezone=True),
        str: Text,
        bytes: LargeBinary,
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
    }


ONEUP = "oneup"
"""The destination that was there before there were others."""

_NOW = text("now()")
_FALSE = text("false")
_ZERO = text("0")


class User(Table):
    """A person, by the backend's name, and the data key of everything sealed for them."""

    __tablename__ = "users"
    __table_args__ = (
        Index(
            "uq_users_app_user_id",
            "app_user_id",
            unique=True,
            postgresql_where=text("erased_at IS NULL"),
        ),
        CheckConstraint(
            "(erased_at IS NULL) = (wrapped_key IS NOT NULL)", name="erased_has_no_key"
        ),
        # Who moved, and of whom something is left at the destination before.
        Index("ix_users_moving", "id", postgresql_where=text("moving")),
        # Whose erasing has begun and not ended: the row goes after the last that refers to it.
        Index("ix_users_erasing", "erased_at", postgresql_where=text("erased_at IS NOT NULL")),
        # Who lives on until what they have at destinations is deleted.
        Index(
            "ix_users_erasing_upstream",
            "erasing_upstream_since",
            postgresql_where=text("erasing_upstream_since IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    app_user_id: Mapped[str | None]
    oneup_user_id: Mapped[str | None]
    master_key_id: Mapped[str | None]
    wrapped_key: Mapped[bytes | None]
    pseudonym: Mapped[UUID | None]
    # Where what they bring goes from now on.
    destination: Mapped[str] = mapped_column(server_default=ONEUP)
    moving: Mapped[bool] = mapped_column(server_default=_FALSE)
    # Apps compare it with the one that they remember: another one says "send everything again".
    sync_token: Mapped[UUID] = mapped_column(server_default=text("gen_random_uuid()"))
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    erased_at: Mapped[datetime | None]
    # Since when they are erased at their destinations too. Nothing of theirs is taken or sent then,
    # but their key and grant are still needed.
    erasing_upstream_since: Mapped[datetime | None]
    # How many resources may be at a destination, and nobody knows where.
    lost_upstream: Mapped[int] = mapped_column(server_default=_ZERO)
    # Their Patients that the backend named, by destination: see `named_patients`.
    sealed_patients: Mapped[bytes | None]


class Grant(Table):
    """A user's tokens at 1upHealth. `version` rises with every new pair of tokens."""

    __tablename__ = "grants"
    __table_args__ = (
        CheckConstraint(_one_of("state", ["active", "needs_authorization"]), name="state"),
        CheckConstraint(_one_of("origin", ["user_management", "backend"]), name="origin"),
        Index(
            "ix_grants_needing_authorization",
            "user_id",
            postgresql_where=text("state = 'needs_authorization'"),
        ),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    state: Mapped[str]
    origin: Mapped[str]
    sealed_tokens: Mapped[bytes]
    expires_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(server_default=text("1"))
    refreshing_until: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Record(Table):
    """A record of a user. The lock of its row puts the record's versions in order."""

    __tablename__ = "records"
    __table_args__ = (
        UniqueConstraint("user_id", "identity"),
        # The first record at a place has the rank 0. So who adds one meets it, or waits for it.
        Index(
            "uq_records_upstream_key",
            "user_id",
            "upstream_key",
            "upstream_rank",
            unique=True,
            postgresql_where=text("upstream_key IS NOT NULL"),
        ),
        CheckConstraint("alias_of IS NULL OR upstream_key IS NULL", name="alias_has_no_place"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    identity: Mapped[bytes]
    versions: Mapped[int] = mapped_column(server_default=_ZERO)
    latest_upload_id: Mapped[UUID | None]
    latest_digest: Mapped[bytes | None]
    # Sealed JSON: when its versions were last changed, as their servers say.
    sealed_watermark: Mapped[bytes | None]
    # Keyed hash of (FHIR version, type, the resource's own id): its place wherever ids are kept.
    # Records there have different ranks.
    upstream_key: Mapped[bytes | None]
    upstream_rank: Mapped[int] = mapped_column(server_default=_ZERO)
    # Its id wherever Uplift derives ids. Nothing of the record can be read from it.
    derived_id: Mapped[str | None]
    # Keyed hashes of where it comes from.
    source_key: Mapped[bytes | None]
    server_key: Mapped[bytes | None]
    # The record that its identity leads to. No foreign key: erasing removes them in any order.
    alias_of: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Delivery(Table):
    """What one destination has of one record: the version that was delivered there last."""

    __tablename__ = "deliveries"
    __table_args__ = (
        # The key is a hash under its user's own key, so no other user has it.
        Index(
            "ix_deliveries_receipt_key",
            "receipt_key",
            postgresql_where=text("receipt_key IS NOT NULL"),
        ),
        # Waits that a clock made longer than any can be.
        Index(
            "ix_deliveries_in_doubt",
            "in_doubt_until",
            postgresql_where=text("in_doubt_until IS NOT NULL"),
        ),
    )

    # No foreign key: to lock the record could wait for one who waits for its uploads.
    record_id: Mapped[UUID] = mapped_column(primary_key=True)
    destination: Mapped[str] = mapped_column(primary_key=True)
    delivered_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default=_ZERO)
    digest: Mapped[bytes | None]
    # Sealed JSON {"id", "version", "stored_at", "sha256"}: the id there may be a hospital's own,
    # and the bytes of a digest could be guessed.
    sealed_receipt: Mapped[bytes | None]
    # Keyed hash of (FHIR version, type, the receipt's id): which resource there is this record.
    receipt_key: Mapped[bytes | None]
    # The newest version of which a send without a precondition had an unknown outcome: it may be
    # stored late, over a newer one. Until that time a newer one waits for it.
    in_doubt_version: Mapped[int | None]
    in_doubt_until: Mapped[datetime | None]


class UpstreamDeletion(Table):
    """A resource that is to be deleted at a destination, since its user is erased there too.

    The row goes when a read found the resource gone, after what was under way had time to arrive.
    """

    __tablename__ = "upstream_deletions"
    __table_args__ = (Index("ix_upstream_deletions_due", "destination", "due_at"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    destination: Mapped[str] = mapped_column(primary_key=True)
    # Keyed hash of what is sealed in the target: each resource has one row.
    key: Mapped[bytes] = mapped_column(primary_key=True)
    fhir_version: Mapped[str]
    resource_type: Mapped[str]
    # Sealed JSON {"id"} or {"system", "value", "parameter"}: where it is, or how it is found.
    sealed_target: Mapped[bytes]
    # The Patient that stands for the user: it goes after everything that refers to it.
    is_person: Mapped[bool] = mapped_column(server_default=_FALSE)
    # When the destination said that it is gone; a read must still find it so.
    deleted_at: Mapped[datetime | None]
    # When the next request is due. Whoever makes it moves this first: so it is one at a time.
    due_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    tries: Mapped[int] = mapped_column(server_default=_ZERO)
    last_response: Mapped[str | None]


class Destination(Table):
    """A destination under the address that it has: its bases, tenant and mode.

    A process that has another address under its name does not send there.
    """

    __tablename__ = "destinations"

    name: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[dict[str, Any]]
    since: Mapped[datetime] = mapped_column(server_default=_NOW)


class SourceAlias(Table):
    """A label of a source that has others: all with one `alias_group` are names of one source."""

    __tablename__ = "source_aliases"
    __table_args__ = (
        Index(
            "ix_source_aliases_retry_collisions",
            "user_id",
            postgresql_where=text("retry_collisions"),
        ),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    source_key: Mapped[bytes] = mapped_column(primary_key=True)
    alias_group: Mapped[UUID]
    # Whether records that collided under it may be one record now.
    retry_collisions: Mapped[bool] = mapped_column(server_default=_FALSE)


class Batch(Table):
    """Uploads that came in one request. The counters count its lines."""

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint("NOT broken OR closed_at IS NOT NULL", name="broken_is_closed"),
        Index("ix_batches_created_at", "created_at", "id"),
        Index("ix_batches_user_id", "user_id", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    # When its input ended; `broken` if it ended before it was complete.
    closed_at: Mapped[datetime | None]
    broken: Mapped[bool] = mapped_column(server_default=_FALSE)
    accepted: Mapped[int] = mapped_column(server_default=_ZERO)
    duplicates: Mapped[int] = mapped_column(server_default=_ZERO)
    problems: Mapped[int] = mapped_column(server_default=_ZERO)


class BatchLine(Table):
    """What became of one line of a batch: an upload, or a problem. Never a value of the line."""

    __tablename__ = "batch_lines"
    __table_args__ = (
        CheckConstraint(
            "(upload_id IS NULL) = (problem IS NOT NULL AND problem_code IS NOT NULL)",
            name="upload_or_problem",
        ),
    )

    batch_id: Mapped[UUID] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True
    )
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    # No foreign key: the line stays when the upload is thinned out.
    upload_id: Mapped[UUID | None]
    duplicate: Mapped[bool] = mapped_column(server_default=_FALSE)
    problem_code: Mapped[str | None]
    problem: Mapped[str | None]


class Upload(Table):
    """One version of one record, on its way to one destination."""

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint(_one_of("state", State), name="state"),
        CheckConstraint(
            "num_nonnulls(lease_id, lease_until, attempt_until) ="
            " CASE WHEN state = 'sending' THEN 3 ELSE 0 END",
            name="sending_is_leased",
        ),
        CheckConstraint("NOT maybe_lost OR maybe_sent", name="lost_is_maybe_sent"),
        CheckConstraint("(state = 'queued') = (next_attempt_at IS NOT NULL)", name="queued_is_due"),
        CheckConstraint(
            f"NOT ({_one_of('state', sorted(UNFINISHED))}) OR sealed_body IS NOT NULL",
            name="unfinished_has_body",
        ),
        CheckConstraint(
            "state <> 'delivered' OR (sealed_body IS NULL AND delivered_at IS NOT NULL)",
            name="delivered_is_shredded",
        ),
        UniqueConstraint("record_id", "version"),
        # History must not slow the work, so what the claim and the sweep look for has indexes of
        # its own, without everything that has ended.
        Index(
            "ix_uploads_ready",
            "queue",
            "destination",
            "finish_tag",
            postgresql_where=text("state = 'queued' AND finish_tag IS NOT NULL"),
        ),
        Index(
            "ix_uploads_due",
            "queue",
            "user_id",
            "next_attempt_at",
            postgresql_where=text("state = 'queued' AND finish_tag IS NULL"),
        ),
        Index(
            "ix_uploads_waiting",
            "next_attempt_at",
            postgresql_where=text("state = 'queued' AND finish_tag IS NULL"),
        ),
        # What waits for its FHIR type, in the order of probes.
        Index(
            "ix_uploads_held",
            "queue",
            "destination",
            "fhir_version",
            "resource_type",
            "attempts",
            postgresql_where=text("state = 'queued' AND finish_tag IS NULL AND reason = 'held'"),
        ),
        # What of a user is queued, and the last tag of it.
        Index(
            "ix_uploads_queued",
            "user_id",
            "queue",
            "finish_tag",
            postgresql_where=text("state = 'queued'"),
            postgresql_include=["body_bytes"],
        ),
        Index("ix_uploads_leased", "lease_until", postgresql_where=text("state = 'sending'")),
        # Both have what back pressure sums up.
        Index(
            "ix_uploads_parked",
            "user_id",
            postgresql_where=text("state = 'parked'"),
            postgresql_include=["body_bytes"],
        ),
        Index(
            "ix_uploads_unfinished",
            "record_id",
            "version",
            postgresql_where=text(_one_of("state", sorted(UNFINISHED))),
        ),
        Index(
            "ix_uploads_giving_up",
            "give_up_at",
            postgresql_where=text("state IN ('queued', 'parked')"),
        ),
        Index("ix_uploads_user_id_id", "user_id", "id"),
        Index("ix_uploads_batch_id", "batch_id", postgresql_where=text("batch_id IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    record_id: Mapped[UUID] = mapped_column(ForeignKey("records.id"))
    version: Mapped[int]
    batch_id: Mapped[UUID | None] = mapped_column(ForeignKey("batches.id"))
    queue: Mapped[str]
    destination: Mapped[str] = mapped_column(server_default=ONEUP)
    fhir_version: Mapped[str]
    resource_type: Mapped[str]
    digest: Mapped[bytes]
    body_bytes: Mapped[int]
    sealed_body: Mapped[bytes | None]
    # Of the request that brought it, if that is traced.
    trace_parent: Mapped[str | None]

    state: Mapped[str]
    reason: Mapped[str | None]
    revision: Mapped[int] = mapped_column(server_default=text("1"))
    attempts: Mapped[int] = mapped_column(server_default=_ZERO)
    crashes: Mapped[int] = mapped_column(server_default=_ZERO)
    # Of these, how many while its process had no other lease.
    crashes_alone: Mapped[int] = mapped_column(server_default=_ZERO)
    maybe_sent: Mapped[bool] = mapped_column(server_default=_FALSE)
    # It may be there only because the ledger lost commits: no attempt that the ledger knows of left
    # it open.
    maybe_lost: Mapped[bool] = mapped_column(server_default=_FALSE)
    # The ledger went back in time since it was accepted: newer content there is unknown here.
    restored: Mapped[bool] = mapped_column(server_default=_FALSE)
    # Complete searches that found nothing since it may have been sent last.
    empty_searches: Mapped[int] = mapped_column(server_default=_ZERO)
    cancel_requested: Mapped[bool] = mapped_column(server_default=_FALSE)
    # The largest Bundle that it may still join; 0: any.
    bundle_limit: Mapped[int] = mapped_column(server_default=_ZERO)
    possible_duplicate: Mapped[bool] = mapped_column(server_default=_FALSE)
    maybe_overwritten: Mapped[bool] = mapped_column(server_default=_FALSE)
    last_response: Mapped[str | None]
    issues: Mapped[dict[str, Any] | None]
    sealed_receipt: Mapped[bytes | None]

    # Since when it waits for a record that it refers to, or waited last.
    waiting_since: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]
    # Where it stands in its queue, see `fair_queue`; none while it may not be claimed.
    finish_tag: Mapped[int | None] = mapped_column(BigInteger)
    give_up_at: Mapped[datetime | None]
    lease_id: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    # When its attempt must have ended: nothing of it is sent later.
    attempt_until: Mapped[datetime | None]
    # Whose lease it is. No foreign key: to check it costs.
    process_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    delivered_at: Mapped[datetime | None]


def state_is(column: SQLColumnExpression[str], *states: State) -> ColumnElement[bool]:
    """Whether an upload's state is one of these.

    The states stand in the SQL itself. With parameters, the generic plan of a prepared statement
    could not use the partial indexes, and would read through all history.
    """
    return column.in_(bindparam(None, states, expanding=True, literal_execute=True))


class Process(Table):
    """A process, until a day after its end. Those that claim uploads are there before they do.

    It ended when `ended_at` is set. `crashed`: not by itself, so its supervisor noted it. `kind` is
    the command that runs it. With its last heartbeat, `machine_at` is the time by the clock of its
    machine; `no_files_at` is the same as `heartbeat_at` if it could open no file.
    """

    __tablename__ = "processes"
    __table_args__ = (CheckConstraint("NOT crashed OR ended_at IS NOT NULL", name="crashed_ended"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    ended_at: Mapped[datetime | None]
    crashed: Mapped[bool] = mapped_column(server_default=_FALSE)
    kind: Mapped[str | None]
    machine_at: Mapped[datetime | None]
    no_files_at: Mapped[datetime | None]


class Attempt(Table):
    """One claim of an upload: opened with the claim, closed with its outcome. Codes only."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index("ix_attempts_upload_id", "upload_id"),
        # For the latest calls. It costs nearly nothing: rows come in this order.
        Index("ix_attempts_opened_at", "opened_at", postgresql_using="brin"),
    )

    lease_id: Mapped[UUID] = mapped_column(primary_key=True)
    upload_id: Mapped[UUID] = mapped_column(
        ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    opened_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    closed_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    status_code: Mapped[int | None]
    duration_ms: Mapped[int | None]


class Tombstone(Table):
    """What is left of a delivered upload that was thinned out: enough for its status."""

    __tablename__ = "tombstones"
    __table_args__ = (Index("ix_tombstones_user_id_upload_id", "user_id", "upload_id"),)

    upload_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    # No foreign key: it stays when the batch is removed.
    batch_id: Mapped[UUID | None]
    destination: Mapped[str] = mapped_column(server_default=ONEUP)
    fhir_version: Mapped[str]
    resource_type: Mapped[str]
    reason: Mapped[str | None]
    revision: Mapped[int]
    attempts: Mapped[int]
    possible_duplicate: Mapped[bool]
    maybe_overwritten: Mapped[bool] = mapped_column(server_default=_FALSE)
    sealed_receipt: Mapped[bytes | None]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime]


class Restore(Table):
    """The ledger went back to `since`: what is put in until `look_until` may be at 1upHealth.

    By `settled_at`, what was under way then is stored or never will be.
    """

    __tablename__ = "restores"

    since: Mapped[datetime] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=_NOW)
    look_until: Mapped[datetime]
    settled_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Pause(Table):
    """A pause of one user, or of everybody if it names none: nothing is sent meanwhile."""

    __tablename__ = "pauses"
    __table_args__ = (
        Index("uq_pauses_user_id", "user_id", unique=True, postgresql_nulls_not_distinct=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    since: Mapped[datetime] = mapped_column(server_default=_NOW)


class Credential(Table):
    """An API key, or a device token of one user. Only a hash of the secret is kept.

    Without the right `mac`, a row is not believed: see uplift.ledger.credentials.
    """

    __tablename__ = "credentials"
    __table_args__ = (
        UniqueConstraint("secret_hash"),
        CheckConstraint(_one_of("kind", ["api_key", "device_token"]), name="kind"),
        CheckConstraint(
            "(kind = 'device_token') = (user_id IS NOT NULL AND expires_at IS NOT NULL)",
            name="device_token_has_user_and_end",
        ),
        Index("ix_credentials_user_id", "user_id", postgresql_where=text("user_id IS NOT NULL")),
        Index(
            "ix_credentials_expires_at",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    secret_hash: Mapped[bytes]
    scopes: Mapped[list[str]]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    mac: Mapped[bytes]


class DeploymentKey(Table):
    """A key of the deployment itself, wrapped by a master key."""

    __tablename__ = "deployment_keys"

    name: Mapped[str] = mapped_column(primary_key=True)
    master_key_id: Mapped[str]
    wrapped_key: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class IdempotencyKey(Table):
    """An Idempotency-Key of one caller, and the upload that its request became."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        Index("ix_idempotency_keys_expires_at", "expires_at"),
        Index("ix_idempotency_keys_upload_id", "upload_id"),
    )

    credential_id: Mapped[UUID] = mapped_column(ForeignKey("credentials.id"), primary_key=True)
    key_hash: Mapped[bytes] = mapped_column(primary_key=True)
    request_digest: Mapped[bytes]
    upload_id: Mapped[UUID]
    expires_at: Mapped[datetime]


class AuditEvent(Table):
    """Who did what, when, about whom: under a pseudonym that erasing destroys.

    A trigger, which its migration makes, lets nobody change or remove a row; the role of the
    processes has no right to, either.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_pseudonym_id", "pseudonym", "id"),
        # A few bytes for many rows, since they are added in the order of their time.
        Index("ix_audit_events_at", "at", postgresql_using="brin"),
        # To find what is not sealed. It costs little: what is added goes to its end.
        Index("ix_audit_events_transaction_id", "transaction_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=_NOW)
    actor: Mapped[str]
    action: Mapped[str]
    pseudonym: Mapped[UUID | None]
    upload_id: Mapped[UUID | None]
    credential_id: Mapped[UUID | None]
    # A transaction that commits late has an older id than others, but then it is not sealed yet.
    transaction_id: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))


class AuditSeal(Table):
    """A seal over the audit events of some transactions, see uplift.ledger.audit_seals."""

    __tablename__ = "audit_seals"
    __table_args__ = (CheckConstraint(_one_of("begins", ["new", "restored"]), name="begins"),)

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    # Whoever can add rows may add false ones: the number alone is nobody's.
    mac: Mapped[bytes] = mapped_column(primary_key=True)
    previous_mac: Mapped[bytes]
    at: Mapped[datetime]
    # Why a series begins with this seal.
    begins: Mapped[str | None]
    # The series has the events after this one. Transactions' ids mean nothing across a restore.
    after_id: Mapped[int] = mapped_column(BigInteger)
    server: Mapped[str]
    from_transaction: Mapped[int] = mapped_column(Xid8)
    to_transaction: Mapped[int] = mapped_column(Xid8)
    events: Mapped[int]
    digest: Mapped[bytes]


class MasterKey(Table):
    """What is known of a master key: never the key itself."""

    __tablename__ = "master_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    in_use_since: Mapped[datetime | None]
    # When it was last seen to wrap something: a backup from then needs it.
    needed_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    retired_at: Mapped[datetime | None]
