"""What is to be deleted at destinations: who may ask for each resource, and what came of it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.parameters import Rows
from uplift.ledger.set_aside import FhirType
from uplift.sealing import WrappedKey

DESTINATION_UNUSABLE = "destination_unusable"
"""The problem of a deletion at a destination that is not in the settings, or has another address
there."""


@dataclass(frozen=True, slots=True)
class NewDeletion:
    """A resource to delete. `key` tells it from the user's others at the destination."""

    destination: str
    key: bytes
    fhir_version: str
    resource_type: str
    sealed_target: bytes
    is_person: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """A resource that this process deletes, or reads if `deleted`, until `due_at`."""

    user_id: UUID
    destination: str
    key: bytes
    fhir_version: str
    resource_type: str
    sealed_target: bytes
    deleted: bool
    tries: int
    due_at: datetime
    app_user_id: str
    wrapped_key: WrappedKey

    @property
    def fhir_type(self) -> FhirType:
        """Its FHIR version and resource type."""
        return FhirType(self.fhir_version, self.resource_type)


@dataclass(frozen=True, slots=True)
class Done:
    """What a request came to. `gone`: a read found it gone, and nothing is left to do.

    Otherwise the next request is due after `seconds`: a read if it is `deleted`, else a deletion.
    `problem` is the code of the response that kept it from being deleted.
    """

    claimed: Claimed
    gone: bool = False
    deleted: bool = False
    seconds: float = 0.0
    problem: str | None = None


def target_context(user_id: UUID, key: bytes) -> bytes:
    """What a sealed target is bound to."""
    return b"upstream deletion " + user_id.bytes + key


_NEW = Rows(
    "new",
    destination="text",
    key="bytea",
    fhir_version="text",
    resource_type="text",
    sealed_target="bytea",
    is_person="bool",
)

# What is added once more may be there again.
_ADD = _NEW.statement("""
    INSERT INTO upstream_deletions AS d (user_id, destination, key, fhir_version, resource_type,
        sealed_target, is_person)
    SELECT DISTINCT ON (n.destination, n.key) CAST(:user_id AS uuid), n.destination, n.key,
        n.fhir_version, n.resource_type, n.sealed_target, n.is_person
    FROM {new} AS n
    ON CONFLICT (user_id, destination, key) DO UPDATE SET deleted_at = NULL, due_at = now()
""")


async def add(connection: AsyncConnection, user_id: UUID, new: Iterable[NewDeletion]) -> None:
    """Add resources to delete, unless they are there already."""
    rows = list(new)
    if rows:
        await connection.execute(_ADD, {"user_id": user_id, **_NEW.parameter(rows)})


# The Patient goes last: until then others refer to it, and its user's records are not all listed.
_DUE = """
    SELECT d.user_id, d.destination, d.key
    FROM upstream_deletions AS d
    JOIN users AS p ON p.id = d.user_id AND p.erased_at IS NULL
    WHERE d.destination = :destination AND d.due_at <= now()
        AND NOT EXISTS (SELECT FROM pauses WHERE user_id IS NULL)
        AND (NOT d.is_person OR d.deleted_at IS NOT NULL OR (
            NOT EXISTS (SELECT FROM records AS r WHERE r.user_id = d.user_id)
            AND NOT EXISTS (SELECT FROM upstream_deletions AS o
                WHERE o.user_id = d.user_id AND o.destination = d.destination
                    AND NOT o.is_person AND o.deleted_at IS NULL)))
    ORDER BY d.due_at LIMIT :limit
"""
_COUNT_DUE = text(f"SELECT count(*) FROM ({_DUE}) AS due")  # noqa: S608  our own text
_CLAIM = text(f"""
    WITH due AS ({_DUE} FOR UPDATE OF d SKIP LOCKED)
    UPDATE upstream_deletions AS d SET due_at = now() + make_interval(secs => :seconds)
    FROM due JOIN users AS p ON p.id = due.user_id
    WHERE d.user_id = due.user_id AND d.destination = due.destination AND d.key = due.key
    RETURNING d.user_id, d.destination, d.key, d.fhir_version, d.resource_type, d.sealed_target,
        d.deleted_at IS NOT NULL AS deleted, d.tries, d.due_at, p.app_user_id, p.master_key_id,
        p.wrapped_key
""")  # noqa: S608  our own text


async def count_due(connection: AsyncConnection, destination: str, *, limit: int) -> int:
    """How many requests are due at that destination, up to `limit`."""
    values = {"destination": destination, "limit": limit}
    return int((await connection.execute(_COUNT_DUE, values)).scalar_one())


async def claim(
    connection: AsyncConnection, destination: str, *, limit: int, seconds: float
) -> list[Claimed]:
    """Take up to `limit` that are due at that destination, for so many seconds: if this process
    ends meanwhile, another takes them then."""
    values = {"destination": destination, "limit": limit, "seconds": seconds}
    return [
        Claimed(
            user_id=row.user_id,
            destination=row.destination,
            key=bytes(row.key),
            fhir_version=row.fhir_version,
            resource_type=row.resource_type,
            sealed_target=bytes(row.sealed_target),
            deleted=row.deleted,
            tries=row.tries,
            due_at=row.due_at,
            app_user_id=row.app_user_id or "",
            wrapped_key=WrappedKey(row.master_key_id or "", row.wrapped_key or b""),
        )
        for row in await connection.execute(_CLAIM, values)
    ]


_TELL_UNUSABLE = text("""
    UPDATE upstream_deletions SET last_response = :problem
    WHERE last_response IS NULL AND destination <> ALL(CAST(:usable AS text[]))
""")


async def tell_unusable(connection: AsyncConnection, usable: Collection[str]) -> None:
    """Note of what is at another destination than these that nobody can ask there now."""
    values = {"problem": DESTINATION_UNUSABLE, "usable": list(usable)}
    await connection.execute(_TELL_UNUSABLE, values)


# Each only while the row is as it was claimed: later it is another's.
_MINE = "user_id = :user_id AND destination = :destination AND key = :key AND due_at = :due_at"
_REMOVE = text(f"DELETE FROM upstream_deletions WHERE {_MINE}")  # noqa: S608  our own text
_GO_ON = text(f"""
    UPDATE upstream_deletions SET due_at = now() + make_interval(secs => :seconds),
        deleted_at = CASE WHEN :deleted THEN coalesce(deleted_at, now()) END,
        tries = CASE WHEN CAST(:problem AS text) IS NULL THEN 0 ELSE tries + 1 END,
        last_response = :problem
    WHERE {_MINE}
""")  # noqa: S608  our own text


async def record(connection: AsyncConnection, done: Done) -> None:
    """Record what a request came to, unless another has the row meanwhile."""
    mine = {
        "user_id": done.claimed.user_id,
        "destination": done.claimed.destination,
        "key": done.claimed.key,
        "due_at": done.claimed.due_at,
    }
    if done.gone:
        await connection.execute(_REMOVE, mine)
        return
    more = {"seconds": done.seconds, "deleted": done.deleted, "problem": done.problem}
    await connection.execute(_GO_ON, {**mine, **more})
