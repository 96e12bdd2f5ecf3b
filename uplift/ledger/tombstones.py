"""What is left of uploads that were thinned out: a tombstone, or nothing but their record."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, literal, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift import uuid_time
from uplift.ledger.parameters import is_among
from uplift.ledger.tables import Tombstone, User
from uplift.lifecycle import State


def status_columns() -> Select[Any]:
    """Delivered uploads by their tombstones, in the columns of `uploads.UploadRow`.

    The findings of the validation and 1upHealth's last response are not kept.
    """
    return select(
        Tombstone.upload_id.label("id"),
        Tombstone.user_id,
        User.app_user_id,
        Tombstone.batch_id,
        Tombstone.destination,
        Tombstone.fhir_version,
        Tombstone.resource_type,
        literal(State.DELIVERED.value).label("state"),
        Tombstone.reason,
        Tombstone.revision,
        Tombstone.attempts,
        literal(value=False).label("maybe_sent"),
        literal(value=False).label("cancel_requested"),
        Tombstone.possible_duplicate,
        Tombstone.maybe_overwritten,
        null().label("last_response"),
        null().label("issues"),
        Tombstone.sealed_receipt,
        User.master_key_id,
        User.wrapped_key,
        null().label("next_attempt_at"),
        null().label("due_in"),
        Tombstone.created_at,
        Tombstone.delivered_at.label("updated_at"),
        Tombstone.delivered_at,
    ).join(User, (User.id == Tombstone.user_id) & User.erased_at.is_(None))


STATUSES_OF = status_columns().where(is_among(Tombstone.upload_id))
"""The statuses of the uploads `ids` that were thinned out."""


async def without_tombstone(
    connection: AsyncConnection,
    upload_id: UUID,
    *,
    user_id: UUID,
    destination: str,
    fhir_version: str,
    resource_type: str,
) -> dict[str, Any] | None:
    """A delivered upload that left no tombstone, in the columns of `uploads.UploadRow`.

    Whoever submits the same content again knows its type, and its id has the time when it was
    accepted. Nobody knows any more how often it was tried, when it was delivered or
    what 1upHealth calls it. None if the user's erasing has begun.
    """
    user = (
        await connection.execute(
            select(User.app_user_id, User.master_key_id, User.wrapped_key).where(
                User.id == user_id, User.erased_at.is_(None)
            )
        )
    ).one_or_none()
    if user is None:
        return None
    accepted_at = datetime.fromtimestamp(uuid_time.seconds_of(upload_id), UTC)
    return {
        "id": upload_id,
        "user_id": user_id,
        "app_user_id": user.app_user_id,
        "batch_id": None,
        "destination": destination,
        "fhir_version": fhir_version,
        "resource_type": resource_type,
        "state": State.DELIVERED,
        "reason": None,
        "revision": 0,
        "attempts": 0,
        "maybe_sent": False,
        "cancel_requested": False,
        "possible_duplicate": False,
        "maybe_overwritten": False,
        "last_response": None,
        "issues": None,
        "sealed_receipt": None,
        "master_key_id": user.master_key_id,
        "wrapped_key": user.wrapped_key,
        "next_attempt_at": None,
        "due_in": None,
        "created_at": accepted_at,
        "updated_at": accepted_at,
        "delivered_at": None,
    }
