"""Ids that a destination assigned: if one is another record's receipt, it is none of this one."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.leases import Outcome
from uplift.ledger.locks import lock_keys
from uplift.ledger.parameters import Rows

_ASSIGNED = Rows("assigned", upload_id="uuid", destination="text", record_id="uuid", key="bytea")

# A statement of its own, after the locks, sees what those before it have committed. It is planned
# each time: while there are few deliveries PostgreSQL would rather read them all, and it would keep
# that plan until it has counted again.
_TAKEN = _ASSIGNED.direct(
    """
    SELECT a.upload_id FROM {assigned} AS a
    WHERE EXISTS (SELECT FROM deliveries AS d WHERE d.receipt_key = a.key
                  AND d.destination = a.destination AND d.record_id <> a.record_id OFFSET 0)
""",
    plan_each_time=True,
)


async def without_taken(connection: AsyncConnection, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes, with `if_taken` for each whose new receipt is another record's there.

    The key of a receipt is a hash under its user's key, so no other user has it. Call it in the
    transaction that records them: until that ends, nobody else gets one of these receipts.
    """
    assigned = [each for each in outcomes if each.if_taken is not None and each.receipt_key]
    if not assigned:
        return list(outcomes)
    await lock_keys(connection, (each.receipt_key or b"" for each in assigned))
    found = await _TAKEN.column(
        connection,
        _ASSIGNED.parameter(
            {
                "upload_id": each.claim.upload_id,
                "destination": each.claim.destination,
                "record_id": each.claim.record_id,
                "key": each.receipt_key,
            }
            for each in assigned
        ),
    )
    taken = set(found) | _taken_in_the_group(assigned)
    return [
        each.if_taken() if each.if_taken is not None and each.claim.upload_id in taken else each
        for each in outcomes
    ]


def _taken_in_the_group(assigned: Sequence[Outcome]) -> set[UUID]:
    """The uploads whose receipt came to another record of the group before them."""
    first: dict[tuple[str, bytes | None], UUID] = {}
    return {
        each.claim.upload_id
        for each in assigned
        if first.setdefault((each.claim.destination, each.receipt_key), each.claim.record_id)
        != each.claim.record_id
    }
