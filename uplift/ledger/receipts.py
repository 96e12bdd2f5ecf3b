"""Ids that 1upHealth assigned: one that is another record's receipt is no receipt of this one."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.leases import Outcome
from uplift.ledger.parameters import Rows

# In one order, so that no two groups of outcomes wait for each other. They last until the
# transaction ends.
_LOCK_KEYS = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")

_ASSIGNED = Rows("assigned", upload_id="uuid", user_id="uuid", record_id="uuid", key="bytea")

# A statement of its own, after the locks, sees what those before it have committed.
_TAKEN = _ASSIGNED.statement("""
    SELECT a.upload_id FROM {assigned} AS a
    WHERE EXISTS (SELECT FROM records AS r WHERE r.user_id = a.user_id
                  AND r.receipt_key = a.key AND r.id <> a.record_id)
""")


async def without_taken(connection: AsyncConnection, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes, with `if_taken` for each whose new receipt is another record's of the user.

    Call it in the transaction that records them: until it ends, nobody else gets one of these
    receipts.
    """
    assigned = [each for each in outcomes if each.if_taken is not None and each.receipt_key]
    if not assigned:
        return list(outcomes)
    # 64 bits of a keyed hash: two that agree by chance only wait for each other.
    locks = {int.from_bytes((each.receipt_key or b"")[:8], "big", signed=True) for each in assigned}
    await connection.execute(_LOCK_KEYS, {"keys": sorted(locks)})
    rows = await connection.execute(
        _TAKEN,
        _ASSIGNED.parameter(
            {
                "upload_id": each.claim.upload_id,
                "user_id": each.claim.user_id,
                "record_id": each.claim.record_id,
                "key": each.receipt_key,
            }
            for each in assigned
        ),
    )
    taken = set(rows.scalars()) | _taken_in_the_group(assigned)
    return [
        each.if_taken if each.if_taken is not None and each.claim.upload_id in taken else each
        for each in outcomes
    ]


def _taken_in_the_group(assigned: Sequence[Outcome]) -> set[UUID]:
    """The uploads whose receipt came to another record of the group before them."""
    first: dict[tuple[UUID, bytes | None], UUID] = {}
    return {
        each.claim.upload_id
        for each in assigned
        if first.setdefault((each.claim.user_id, each.receipt_key), each.claim.record_id)
        != each.claim.record_id
    }
