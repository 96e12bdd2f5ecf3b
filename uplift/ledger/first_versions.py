"""Adds uploads that are the first of their record: by far the most frequent case, so one statement.

It does nothing about a record that is there, or that another transaction adds meanwhile, nor about
one whose place has a record: those are for `later_versions`.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.new_uploads import Added, NewUpload, Version, add, add_unread, adding

# In the lock order: only in this statement a transaction waits while it has locked records that
# others cannot see yet. Whoever waits for one of those has locked no record that is there. Two
# labels of one source bring the same places, so these decide the order.
_SOURCE = "new JOIN first ON first.id = new.record_id"
_FIRST = """first AS (
        INSERT INTO records
            (id, user_id, identity, upstream_key, derived_id, source_key, server_key,
                sealed_watermark, versions, latest_upload_id, latest_digest)
        SELECT record_id, user_id, identity, upstream_key, derived_id, source_key, server_key,
            watermark, 1, id, digest
        FROM new ORDER BY user_id, coalesce(upstream_key, identity), identity
        ON CONFLICT DO NOTHING
        RETURNING id
    ), """
_ADD_FIRST = adding(_SOURCE, first=_FIRST)
_ADD_FIRST_UNREAD = adding(_SOURCE, first=_FIRST, read=False)


async def add_first_versions(
    connection: AsyncConnection, group: Sequence[NewUpload]
) -> dict[UUID, Added]:
    """Add those uploads whose record is not there yet; each record may be in the group once.

    Returns what was added, by the uploads' ids.
    """
    return await add(connection, _ADD_FIRST, _first(group))


async def add_first_versions_unread(
    connection: AsyncConnection, group: Sequence[NewUpload]
) -> set[UUID]:
    """`add_first_versions`, but only which were added."""
    return await add_unread(connection, _ADD_FIRST_UNREAD, _first(group))


def _first(group: Sequence[NewUpload]) -> list[Version]:
    return [Version(new, new.record_id, number=1, maybe_sent=False) for new in group]
