"""Puts uploads in, with their records and the audit trail: each content once, and in order.

The locks on the records' rows put twins that arrive at once in a row, within a group and between
groups. Content that went back to what was delivered needs no upload, unless another version may
have reached 1upHealth since. What comes after a version that ended while it may be at 1upHealth may
be there as well, so a worker looks it up first.

Ended uploads may be thinned out: `records` knows what was delivered without them. The content that
came last and was delivered last stays a duplicate, under the id of its upload, for which there may
be no row any more. What ended undelivered and is gone is a new upload when it comes again. So is
what was delivered last, is gone, and comes back after other content; a worker looks it up first, so
that it is not sent twice.
"""

from collections.abc import Container, Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import uploads, users
from uplift.ledger.first_versions import add_first_versions, add_first_versions_unread
from uplift.ledger.later_versions import Kept, add_later_versions
from uplift.ledger.new_uploads import NewUpload, first_status
from uplift.ledger.uploads import UploadRow
from uplift.ledger.users import LockedUser


async def put_in(
    connection: AsyncConnection,
    group: Sequence[NewUpload],
    owners: Mapping[UUID, LockedUser],
) -> list[tuple[UploadRow, bool] | None]:
    """Put uploads in, unless their record has their content already.

    `owners` are their users by id, locked by this transaction. Returns for each, in the order of
    the group, the row of its upload and whether that was there before; None if the erasing of its
    user has begun.
    """
    if not group:
        return []
    kept = await _put_in(connection, group, read=True)
    # A locked user is not gone, but their erasing may have begun while a lock was waited for.
    erased = await users.find_erased(connection, {new.user_id for new in group})
    # What has a later version in the group may be superseded already.
    last = {kept[new.id].record_id: kept[new.id].id for new in group}
    rows: dict[UUID, UploadRow] = {}
    for new in group:
        added = kept[new.id].added
        if added and new.user_id not in erased and last[kept[new.id].record_id] == new.id:
            rows[new.id] = first_status(new, added, owners[new.user_id])
    if missing := [each.id for each in kept.values() if each.id not in rows]:
        rows |= await uploads.get_uploads(connection, missing)
    for new in group:
        each = kept[new.id]
        if each.duplicate and each.id not in rows:
            thinned = await uploads.get_thinned(
                connection,
                each.id,
                user_id=new.user_id,
                destination=new.destination,
                fhir_version=new.fhir_version,
                resource_type=new.resource_type,
            )
            if thinned is not None:
                rows[each.id] = thinned
    return [
        (rows[each.id], each.duplicate) if each.id in rows else None
        for each in (kept[new.id] for new in group)
    ]


async def keep(connection: AsyncConnection, group: Sequence[NewUpload]) -> list[Kept]:
    """`put_in`, but only what became of each. `added` is missing."""
    kept = await _put_in(connection, group, read=False)
    return [kept[new.id] for new in group]


async def _put_in(
    connection: AsyncConnection, group: Sequence[NewUpload], *, read: bool
) -> dict[UUID, Kept]:
    """What became of each upload, by the id that it came with.

    Without `read`, what the ledger decided about new ones stays there.
    """
    kept: dict[UUID, Kept] = {}
    rounds, twins = _rounds(group)
    for number, once_each in enumerate(rounds):
        rest = once_each
        if not number:  # only in the first round a record can be missing
            first: Container[UUID]
            if read:
                first = decided = await add_first_versions(connection, once_each)
            else:
                first, decided = await add_first_versions_unread(connection, once_each), {}
            kept |= {
                new.id: Kept(new.id, new.record_id, False, decided.get(new.id), True)
                for new in once_each
                if new.id in first
            }
            rest = [new for new in once_each if new.id not in first]
        if rest:
            kept |= await add_later_versions(connection, rest)
    return kept | {
        twin.id: Kept(kept[first.id].id, kept[first.id].record_id, duplicate=True)
        for twin, first in twins
    }


def _rounds(
    group: Sequence[NewUpload],
) -> tuple[list[list[NewUpload]], list[tuple[NewUpload, NewUpload]]]:
    """The group in rounds that have each record once, in its order; and twins with their first.

    A twin has the content and the times of the one before it of the same record, so it needs
    nothing.
    """
    rounds: list[list[NewUpload]] = []
    twins: list[tuple[NewUpload, NewUpload]] = []
    seen: dict[tuple[UUID, bytes], tuple[NewUpload, int]] = {}
    for new in group:
        record = (new.user_id, new.identity)
        before, round_ = seen.get(record, (None, -1))
        if before is not None and (before.digest, before.times) == (new.digest, new.times):
            twins.append((new, before))
            continue
        if round_ + 1 == len(rounds):
            rounds.append([])
        rounds[round_ + 1].append(new)
        seen[record] = (new, round_ + 1)
    return rounds, twins
