"""The lock order: who waits for row locks takes them in this order, so no two wait for each other.

1. Users, by `lock_users` or `share_lock`. Such a lock is shared: it only keeps the user's row.
2. Places, by `places.lock`.
3. Records, in the order of (user_id, identity), by the functions here.
4. A user's aliases, by `source_aliases`.
5. Uploads, in the order of their ids.

A transaction may leave steps out, but goes back to none. Only who never waits (SKIP LOCKED) is
free of the order. Records that a transaction adds are locked too, but others cannot see them yet.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.direct_statements import DirectStatement, built
from uplift.ledger.parameters import array, is_among
from uplift.ledger.tables import Record, User


def share_lock(statement: Select[Any]) -> Select[Any]:
    """The statement, locking the users it finds: they cannot be removed meanwhile."""
    return statement.with_for_update(of=User, read=True, key_share=True)


_LOCK_FREE_USERS = DirectStatement("""
    SELECT u.id, u.app_user_id, u.master_key_id, u.wrapped_key, u.destination
    FROM users AS u
    WHERE u.app_user_id = ANY(CAST(:names AS text[])) AND u.erased_at IS NULL
        AND u.erasing_upstream_since IS NULL
    FOR KEY SHARE OF u SKIP LOCKED
""")


async def lock_free_users(
    connection: AsyncConnection, app_user_ids: Collection[str]
) -> Sequence[Any]:
    """Lock the living users of these names, as `share_lock` does; passes over those who are locked
    against it. Each row has `id`, `app_user_id`, `master_key_id`, `wrapped_key` and
    `destination`.
    """
    return await _LOCK_FREE_USERS.rows(connection, {"names": array("text", app_user_ids)})


_LOCK_KEYS = DirectStatement(
    "SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key"
)


async def lock_keys(connection: AsyncConnection, hashes: Iterable[bytes]) -> None:
    """Lock what these keyed hashes stand for, until the transaction ends.

    In one order, so that no two who lock several in common wait for each other.
    """
    # 64 bits of a hash: two that agree by chance only wait for each other.
    keys = {int.from_bytes(each[:8], "big", signed=True) for each in hashes}
    await _LOCK_KEYS.rows(connection, {"keys": array("bigint", sorted(keys))})


_LOCK_RECORDS = built(
    select(Record.id)
    .where(is_among(Record.id))
    .order_by(Record.user_id, Record.identity)
    .with_for_update(),
    "ids",
)


async def lock_records(connection: AsyncConnection, record_ids: Collection[UUID]) -> None:
    """Lock these records."""
    await _LOCK_RECORDS.rows(connection, {"ids": array("uuid", record_ids)})


_LOCK_RECORDS_OF = text("""
    SELECT r.id FROM records AS r
    WHERE r.id IN (SELECT record_id FROM uploads WHERE id = ANY(CAST(:ids AS uuid[])))
    ORDER BY r.user_id, r.identity FOR UPDATE
""")


async def lock_records_of(connection: AsyncConnection, upload_ids: Collection[UUID]) -> None:
    """Lock the records of these uploads."""
    await connection.execute(_LOCK_RECORDS_OF, {"ids": list(upload_ids)})


_LOCK_AND_READ = DirectStatement("""
    SELECT id, user_id, identity, alias_of, versions, latest_upload_id, latest_digest,
        sealed_watermark, upstream_key, upstream_rank, derived_id, source_key, server_key
    FROM records WHERE id = ANY(CAST(:ids AS uuid[]))
    ORDER BY user_id, identity FOR UPDATE
""")


async def lock_and_read_records(
    connection: AsyncConnection, record_ids: Collection[UUID]
) -> dict[UUID, Any]:
    """Lock these records; what is known of each, by its id. What is gone is missing."""
    rows = await _LOCK_AND_READ.rows(connection, {"ids": array("uuid", record_ids)})
    return {row.id: row for row in rows}
