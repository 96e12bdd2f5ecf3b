"""The lock order: who waits for row locks takes them in this order, so no two wait for each other.

1. Users, by `lock_users` or `share_lock`. Such a lock is shared: it only keeps the user's row.
2. Records, in the order of (user_id, identity), by the functions here.
3. Uploads, in the order of their ids.

A transaction may leave steps out, but goes back to none. Only who never waits (SKIP LOCKED) is
free of the order. Records that a transaction adds are locked too, but others cannot see them yet.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.parameters import Rows, is_among
from uplift.ledger.tables import Record, User


def share_lock(statement: Select[Any]) -> Select[Any]:
    """The statement, locking the users it finds: they cannot be removed meanwhile."""
    return statement.with_for_update(of=User, read=True, key_share=True)


# As text: SQLAlchemy takes longer to look up a statement that it composed than PostgreSQL to run
# it.
_LOCK_FREE_USERS = text("""
    SELECT u.id, u.app_user_id, u.master_key_id, u.wrapped_key
    FROM users AS u
    WHERE u.app_user_id = ANY(CAST(:names AS text[])) AND u.erased_at IS NULL
    FOR KEY SHARE OF u SKIP LOCKED
""")


async def lock_free_users(
    connection: AsyncConnection, app_user_ids: Collection[str]
) -> Sequence[Row[Any]]:
    """Lock the living users of these names, as `share_lock` does; passes over those who are locked
    against it. Each row has `id`, `app_user_id`, `master_key_id` and `wrapped_key`.
    """
    found = await connection.execute(_LOCK_FREE_USERS, {"names": list(app_user_ids)})
    return found.all()


_LOCK_RECORDS = (
    select(Record.id)
    .where(is_among(Record.id))
    .order_by(Record.user_id, Record.identity)
    .with_for_update()
)


async def lock_records(connection: AsyncConnection, record_ids: Collection[UUID]) -> None:
    """Lock these records."""
    await connection.execute(_LOCK_RECORDS, {"ids": list(record_ids)})


_LOCK_RECORDS_OF = text("""
    SELECT r.id FROM records AS r
    WHERE r.id IN (SELECT record_id FROM uploads WHERE id = ANY(CAST(:ids AS uuid[])))
    ORDER BY r.user_id, r.identity FOR UPDATE
""")


async def lock_records_of(connection: AsyncConnection, upload_ids: Collection[UUID]) -> None:
    """Lock the records of these uploads."""
    await connection.execute(_LOCK_RECORDS_OF, {"ids": list(upload_ids)})


_RECORDS = Rows("records", id="uuid", user_id="uuid", identity="bytea", upstream_key="bytea")

# The update takes the row's lock and returns it. It changes the key of a record whose id in the
# resource is another now, or that had none.
_ADD_OR_LOCK = _RECORDS.statement("""
    INSERT INTO records AS r (id, user_id, identity, upstream_key)
    SELECT n.id, n.user_id, n.identity, n.upstream_key
    FROM {records} AS n
    ORDER BY n.user_id, n.identity
    ON CONFLICT (user_id, identity) DO UPDATE SET upstream_key = excluded.upstream_key
    RETURNING r.id, r.user_id, r.identity, r.versions, r.latest_upload_id, r.latest_digest,
        r.delivered_version, r.delivered_digest, r.sealed_watermark
""")


async def add_or_lock_records(
    connection: AsyncConnection, records: Iterable[Mapping[str, Any]]
) -> Sequence[Row[Any]]:
    """Lock these records, and add those that are not there, under the `id` that is given.

    A record is a `user_id` and an `identity`; its `upstream_key` replaces the one that is
    noted. Returns what is known of each, in no order.
    """
    found = await connection.execute(_ADD_OR_LOCK, _RECORDS.parameter(records))
    return found.all()
