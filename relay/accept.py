"""Takes a resource in: read, sealed, committed, and only then rung for."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import orjson
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from relay.back_pressure import BackPressure
from relay.bell import Bell
from relay.errors import KeyReused, NotFound, SealError, UnreadableUpload
from relay.fhir.versions import FhirVersion
from relay.identity import (
    canonical,
    content_digest,
    record_identity,
    request_digest,
    upstream_key,
)
from relay.ledger import audit, idempotency, uploads, users
from relay.ledger.audit import SYSTEM, Action, Actor
from relay.ledger.database import Database, is_away
from relay.ledger.group_commit import GroupCommit
from relay.ledger.idempotency import CallersKey
from relay.ledger.uploads import NewUpload, UploadRow
from relay.ledger.users import UserRow
from relay.queues import UPLOADS
from relay.sealing import KeyRing, UserKey
from relay.settings import Settings

NO_SUCH_USER = "There is no such user. Create them first: POST /v1/users, or `uplift users add`."

# For less, going to a thread and back takes longer than it spares the event loop.
_INLINE_BYTES_MOST = 64 * 1024
NOT_JSON = (
    "The body is not JSON that can be kept: RFC 8259 in UTF-8, no number beyond a double, no half"
    " of a surrogate pair, at most 200 levels deep."
)
_NAME_MOST = 1024
_TYPE = re.compile(r"[A-Za-z]{1,64}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.]{1,16}", re.ASCII)
# Postgres takes no U+0000 in a text, and UTF-8 no half of a surrogate pair.
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")

_Done = TypeVar("_Done")


class _Envelope(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw
    user: str | None = None
    fhir_version: str | None = None
    source: str | None = None
    record_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What comes with a resource from outside of it, in the query or in the envelope."""

    user: str | None = None
    fhir_version: str | None = None
    source: str | None = None
    record_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A readable resource: its bytes as they came, and what they say.

    `content` is `relay.identity.canonical` of it.
    """

    labels: Labels
    fhir_version: str
    resource_type: str
    resource: dict[str, Any]
    content: bytes
    body: bytes


def read(body: bytes, labels: Labels) -> Submission:
    """Read a bare resource, or an envelope around one.

    What the envelope names goes before the same name in `labels`. Raises UnreadableUpload that
    says what to change; judging the resource itself is the worker's.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnreadableUpload(NOT_JSON) from None
    if not isinstance(value, dict):
        raise UnreadableUpload("The body is not a JSON object.")
    if "resourceType" not in value and "resource" in value:
        body, labels = _open_envelope(body, labels)
        value = value["resource"]
        if not isinstance(value, dict):
            raise UnreadableUpload("The envelope's resource is not a JSON object.")
    resource_type = value.get("resourceType")
    if not isinstance(resource_type, str) or not _TYPE.fullmatch(resource_type):
        raise UnreadableUpload(
            "There is no resourceType that could be a FHIR type. Send a FHIR resource, or an"
            " envelope {user, fhirVersion, source, recordId, resource}."
        )
    if labels.fhir_version is None:
        raise UnreadableUpload(
            "There is no fhirVersion. Send what HealthKit says: DSTU2, STU3 or R4"
            " (or 1.0.2, 3.0.1, 4.0.1)."
        )
    if not _VERSION.fullmatch(labels.fhir_version):
        raise UnreadableUpload("fhirVersion is not a FHIR version such as R4 or 4.0.1.")
    for name, text in (
        ("user", labels.user),
        ("source", labels.source),
        ("recordId", labels.record_id),
    ):
        _check_name(name, text or "")
    try:
        content = canonical(value)
    except ValueError as error:
        raise UnreadableUpload(f"The resource cannot be kept. {error}") from None
    version = FhirVersion.parse(labels.fhir_version)
    return Submission(
        labels=labels,
        fhir_version=version.value if version else labels.fhir_version,
        resource_type=resource_type,
        resource=value,
        content=content,
        body=body,
    )


async def read_apart(body: bytes, labels: Labels) -> Submission:
    """`read`, without holding the event loop up for a large body."""
    return await _apart(len(body), lambda: read(body, labels))


async def _apart(size: int, work: Callable[[], _Done]) -> _Done:
    """Do what takes time in proportion to `size`, in bytes: in a thread if that is long."""
    return await asyncio.to_thread(work) if size > _INLINE_BYTES_MOST else work()


def _check_name(name: str, text: str) -> None:
    if len(text) > _NAME_MOST:
        raise UnreadableUpload(f"{name} has more than {_NAME_MOST} characters.")
    if _UNKEEPABLE.search(text):
        raise UnreadableUpload(f"{name} holds U+0000, or half of a surrogate pair.")


def _open_envelope(body: bytes, labels: Labels) -> tuple[bytes, Labels]:
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except msgspec.ValidationError as error:
        # Its text names the field and the types, never a value.
        raise UnreadableUpload(f"The envelope is wrong: {error}.") from None
    except msgspec.DecodeError:
        raise UnreadableUpload(NOT_JSON) from None
    except RecursionError:
        raise UnreadableUpload("The envelope's arrays and objects are nested too deep.") from None
    return bytes(envelope.resource), Labels(
        user=envelope.user if envelope.user is not None else labels.user,
        fhir_version=(
            envelope.fhir_version if envelope.fhir_version is not None else labels.fhir_version
        ),
        source=envelope.source if envelope.source is not None else labels.source,
        record_id=envelope.record_id if envelope.record_id is not None else labels.record_id,
    )


@dataclass(frozen=True, slots=True)
class Accepted:
    """An upload that is committed, and whether it was there before."""

    upload: UploadRow
    duplicate: bool


@dataclass(frozen=True, slots=True)
class _Offer:
    """A submission that somebody waits for."""

    app_user_id: str
    submission: Submission
    queue: str
    by: Actor
    key: CallersKey | None


class Acceptor:
    """Keeps submissions of users.

    Small ones that come together share one transaction: each still gets its own answer, and its
    own error.
    """

    def __init__(
        self,
        database: Database,
        ring: KeyRing,
        bell: Bell,
        pressure: BackPressure,
        settings: Settings,
    ) -> None:
        self._database = database
        self._ring = ring
        self._bell = bell
        self._pressure = pressure
        self._ring_seconds = settings.ring_seconds
        self._together = GroupCommit(self._accept_together, concerns_all=is_away)

    async def accept(
        self,
        app_user_id: str,
        submission: Submission,
        *,
        queue: str = UPLOADS,
        by: Actor = SYSTEM,
        key: CallersKey | None = None,
    ) -> Accepted:
        """Commit a submission of that user.

        With a `key` that stands for the same request, the answer is that request's again: its
        upload as it is now, and `duplicate` as it was.

        Raises NotFound if there is no such user, KeyReused if the key stands for another request,
        and BacklogFull if too much waits already.
        """
        self._pressure.check()
        offer = _Offer(app_user_id, submission, queue, by, key)
        if key is None and len(submission.body) <= _INLINE_BYTES_MOST:
            accepted = await self._together(offer)
            if accepted is not None:
                return accepted
        return await self._accept_alone(offer)

    async def _accept_together(self, offers: list[_Offer]) -> list[Accepted | None]:
        """Commit these; None for those of a user who is not there, is locked, or has no good key.

        Those are for `_accept_alone`, which waits, or says what is wrong.
        """
        async with self._database.transaction() as connection:
            found = await users.hold_users(connection, {offer.app_user_id for offer in offers})
            keys = {name: key for name, user in found.items() if (key := self._key(user))}
            new = [
                sealed(
                    offer.submission,
                    found[offer.app_user_id].id,
                    keys[offer.app_user_id],
                    queue=offer.queue,
                )
                if offer.app_user_id in keys
                else None
                for offer in offers
            ]
            accepted = await self._commit(connection, offers, new)
        self._ring_for(offers, accepted)
        return accepted

    def _key(self, user: UserRow) -> UserKey | None:
        try:
            return user.key(self._ring)
        except SealError:
            return None

    async def _accept_alone(self, offer: _Offer) -> Accepted:
        async with self._database.transaction() as connection:
            user = await users.find_user(connection, offer.app_user_id, hold=True)
            if user is None:
                raise NotFound(NO_SUCH_USER)
            user_id, key = user.id, user.key(self._ring)
            new = await _apart(
                len(offer.submission.body),
                lambda: sealed(offer.submission, user_id, key, queue=offer.queue),
            )
            if offer.key is not None:
                before = await _claim(connection, offer.key, offer.submission, key, new)
                if before is not None:
                    return before
            (accepted,) = await self._commit(connection, [offer], [new])
            if accepted is not None and offer.key is not None and accepted.duplicate:
                await idempotency.name_upload(connection, offer.key, accepted.upload.id)
        if accepted is None:
            raise NotFound(NO_SUCH_USER)
        self._ring_for([offer], [accepted])
        return accepted

    async def _commit(
        self,
        connection: AsyncConnection,
        offers: Sequence[_Offer],
        new: Sequence[NewUpload | None],
    ) -> list[Accepted | None]:
        """Put in what there is of `new`, which stands in the order of its offers."""
        put = [each for each in new if each is not None]
        kept = await uploads.put_in(connection, put, ring_seconds=self._ring_seconds)
        outcomes = {each.id: outcome for each, outcome in zip(put, kept, strict=True)}
        actors = {
            each.id: offer.by
            for offer, each in zip(offers, new, strict=True)
            if each is not None and not outcomes[each.id][1]
        }
        await audit.note_uploads_by(connection, Action.UPLOAD_ACCEPTED, actors)
        rows = await uploads.get_uploads(connection, [id_ for id_, _ in kept])
        for offered in put:
            upload_id, duplicate = outcomes[offered.id]
            if duplicate and upload_id not in rows:
                dropped = await uploads.get_dropped(
                    connection,
                    upload_id,
                    user_id=offered.user_id,
                    fhir_version=offered.fhir_version,
                    resource_type=offered.resource_type,
                )
                rows |= {upload_id: dropped} if dropped is not None else {}
        accepted: list[Accepted | None] = []
        for each in new:
            if each is None:
                accepted.append(None)
                continue
            kept_id, duplicate = outcomes[each.id]
            # Not in rows: their erasing began meanwhile, and what it began with is not shown.
            row = rows.get(kept_id)
            accepted.append(Accepted(row, duplicate) if row is not None else None)
        return accepted

    def _ring_for(self, offers: Sequence[_Offer], accepted: Sequence[Accepted | None]) -> None:
        for offer, each in zip(offers, accepted, strict=True):
            if each is not None and not each.duplicate:
                self._bell.ring(offer.queue, [each.upload.id])


async def _claim(
    connection: AsyncConnection,
    key: CallersKey,
    submission: Submission,
    user_key: UserKey,
    new: NewUpload,
) -> Accepted | None:
    """Claim an idempotency key for an upload; what it stands for, if that is the same request."""
    labels = submission.labels
    digest = request_digest(
        user_key.identity_key,
        fhir_version=labels.fhir_version,
        source=labels.source,
        record_id=labels.record_id,
        body=submission.body,
    )
    if await idempotency.claim(connection, key, digest, new.id):
        return None
    known = await idempotency.find(connection, key)
    if known is None:
        raise NotFound(NO_SUCH_USER)  # their device token is gone: they are being erased
    row = (await uploads.get_uploads(connection, [known.upload_id])).get(known.upload_id)
    if row is None:
        # Its user was erased, and this is another of the same name.
        await idempotency.claim(connection, key, digest, new.id, anew=True)
        return None
    if known.request_digest != digest:
        raise KeyReused(
            "This Idempotency-Key came with another request less than a day ago. Send each"
            " request with a key of its own; only the same request again has the same."
        )
    # Both times are that of the transaction in which the upload was made, if that was the one.
    return Accepted(row, duplicate=row.created_at != known.since)


def sealed(
    submission: Submission,
    user_id: UUID,
    key: UserKey,
    *,
    queue: str,
    batch_id: UUID | None = None,
) -> NewUpload:
    """A submission as the ledger keeps it: identified, digested and sealed with the user's key."""
    digest = content_digest(key.identity_key, submission.content)
    resource_id = submission.resource.get("id")
    record_id = submission.labels.record_id or resource_id
    upload_id = uuid7()
    return NewUpload(
        id=upload_id,
        user_id=user_id,
        identity=record_identity(
            key.identity_key,
            fhir_version=submission.fhir_version,
            resource_type=submission.resource_type,
            source=submission.labels.source,
            record_id=record_id if isinstance(record_id, str) else None,
            digest=digest,
        ),
        digest=digest,
        fhir_version=submission.fhir_version,
        resource_type=submission.resource_type,
        body_bytes=len(submission.body),
        sealed_body=key.seal(submission.body, uploads.body_context(upload_id)),
        queue=queue,
        upstream_key=(
            upstream_key(
                key.identity_key,
                fhir_version=submission.fhir_version,
                resource_type=submission.resource_type,
                resource_id=resource_id,
            )
            if isinstance(resource_id, str) and resource_id
            else None
        ),
        batch_id=batch_id,
    )
