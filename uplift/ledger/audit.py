"""The audit trail: who did what, when, about whom. A trigger lets rows only be added.

A person stands in it under `users.pseudonym`, a random id. Erasing destroys that, so the trail
stays true, and no longer leads to anybody. Every act is noted in its own transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from sqlalchemy import bindparam, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import AuditEvent, User

Actor = NewType("Actor", str)
"""Who acts: `key:<credential id>`, `device:<credential id>`, `cli:<name at the system>`."""

SYSTEM = Actor("system")
"""Uplift itself: nobody asked."""


class Action(StrEnum):
    """All that is audited. Reading a status is not."""

    USER_ADDED = "user_added"
    USER_ERASED = "user_erased"
    UPSTREAM_ERASURE_REQUESTED = "upstream_erasure_requested"  # at the destinations too
    USER_MOVED = "user_moved"  # to another destination
    PATIENT_NAMED = "patient_named"  # which Patient stands for the user at a destination
    RESEND_REQUESTED = "resend_requested"
    GRANT_OBTAINED = "grant_obtained"  # from 1upHealth's user management, on somebody's request
    GRANT_BROUGHT = "grant_brought"
    DEVICE_TOKEN_MADE = "device_token_made"  # noqa: S105  an action, not a token
    DEVICE_TOKEN_REVOKED = "device_token_revoked"  # noqa: S105  an action, not a token
    API_KEY_MADE = "api_key_made"
    API_KEY_REVOKED = "api_key_revoked"
    UPLOAD_ACCEPTED = "upload_accepted"
    UPLOAD_REDRIVEN = "upload_redriven"
    UPLOAD_TRIED_NOW = "upload_tried_now"
    UPLOAD_CANCELLED = "upload_cancelled"
    READ_BACK = "read_back"
    PAUSED = "paused"
    RESUMED = "resumed"
    DESTINATION_CHANGED = "destination_changed"  # a person decided about another address
    KEYS_ROTATED = "keys_rotated"
    KEY_RETIRED = "key_retired"
    RESTORED = "restored"  # what may have been sent before a restore was marked


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the trail."""

    id: int
    at: datetime
    actor: str
    action: str
    pseudonym: UUID | None
    upload_id: UUID | None
    credential_id: UUID | None


async def note(
    connection: AsyncConnection,
    actor: Actor,
    action: Action,
    *,
    user_id: UUID | None = None,
    credential_id: UUID | None = None,
) -> None:
    """Note an act; `credential_id` is the key or token that it made or ended."""
    await connection.execute(
        insert(AuditEvent).values(
            actor=actor,
            action=action,
            pseudonym=select(User.pseudonym).where(User.id == user_id).scalar_subquery(),
            credential_id=credential_id,
        )
    )


_NOTE_UPLOADS = text("""
    INSERT INTO audit_events (actor, action, pseudonym, upload_id)
    SELECT :actor, :action, users.pseudonym, uploads.id
    FROM uploads JOIN users ON users.id = uploads.user_id
    WHERE uploads.id = ANY(CAST(:ids AS uuid[]))
    ORDER BY uploads.id
""")


async def note_uploads(
    connection: AsyncConnection, actor: Actor, action: Action, upload_ids: Sequence[UUID]
) -> None:
    """Note an act on each of these uploads: one statement, however many there are."""
    if upload_ids:
        await connection.execute(
            _NOTE_UPLOADS, {"actor": actor, "action": action, "ids": list(upload_ids)}
        )


async def list_events(
    connection: AsyncConnection,
    *,
    user_id: UUID | None = None,
    since: datetime | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[Event]:
    """The trail in its order, from the event after `after`; of one living user, if `user_id`."""
    statement = (
        select(
            AuditEvent.id,
            AuditEvent.at,
            AuditEvent.actor,
            AuditEvent.action,
            AuditEvent.pseudonym,
            AuditEvent.upload_id,
            AuditEvent.credential_id,
        )
        .where(AuditEvent.id > after)
        .order_by(AuditEvent.id)
        .limit(limit)
    )
    if user_id is not None:
        statement = statement.where(
            AuditEvent.pseudonym
            == select(User.pseudonym).where(User.id == user_id).scalar_subquery()
        )
    if since is not None:
        statement = statement.where(AuditEvent.at >= bindparam("since", since))
    return [Event(**row._mapping) for row in await connection.execute(statement)]  # noqa: SLF001  SQLAlchemy's public name for it
