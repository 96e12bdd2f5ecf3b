"""The one function that changes an upload's state, against the table in `uplift.lifecycle`."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.direct_statements import DirectStatement
from uplift.ledger.parameters import Rows
from uplift.lifecycle import DEAD_LETTERS, Reason, State, allowed


class Change(Struct, frozen=True, kw_only=True):
    """One upload's step from a state to another. What is None stays as it is.

    `source` and, where a worker has the upload, `lease_id` must still be true of the row, or the
    change does nothing: somebody else was first. Times are in seconds from the database's now.
    """

    upload_id: UUID
    source: State
    target: State
    reason: Reason | None = None
    lease_id: UUID | None = None  # the lease that the row must have now
    new_lease_id: UUID | None = None  # the lease that a claim sets
    lease_seconds: float | None = None
    attempt_seconds: float | None = None
    process_id: UUID | None = None  # whose lease the claim sets
    delay: float = 0.0  # until a queued upload is due
    clock: float | None = None  # until it gives up: starts with the first claim, and with parking
    maybe_sent: bool | None = None
    # The attempt itself may have sent it: the doubt is not only from commits that were lost.
    sent_itself: bool = False
    # Whole searches that found nothing since it may have been sent last. A lease that expired, and
    # a return to the queue from another state than sending, reset the count.
    empty_searches: int | None = None
    bundle_limit: int | None = None  # the largest Bundle that it may still join; 0: any
    possible_duplicate: bool | None = None
    maybe_overwritten: bool | None = None
    # Its worker vanished with it; `crashed_alone`: and with nothing else.
    crashed: bool = False
    crashed_alone: bool = False
    # The attempt did not come to the send, so whether it crashes a worker is as open as before.
    keeps_crashes: bool = False
    # The attempt met a limit and tried nothing: it does not count, and the time to give up stands
    # still while the upload waits.
    free: bool = False
    last_response: str | None = None
    issues: dict[str, Any] | None = None
    sealed_receipt: bytes | None = None
    # As if it had just been accepted: nothing tried or found yet, and nobody asked to cancel it.
    reset: bool = False

    def __post_init__(self) -> None:
        if not allowed(self.source, self.target):
            raise ValueError(f"No upload goes from {self.source} to {self.target}.")
        if self.source is State.SENDING and self.lease_id is None:
            raise ValueError("Only the lease's owner may change an upload that is sending.")
        if self.free and (self.source, self.target) != (State.SENDING, State.QUEUED):
            raise ValueError("Only an attempt that ends in the queue can be free.")
        if self.reset and (self.source not in DEAD_LETTERS or self.target is not State.QUEUED):
            raise ValueError("Only a dead letter that is queued can be reset.")


_CHANGES = Rows(
    "changes",
    upload_id="uuid",
    source="text",
    target="text",
    reason="text",
    lease_id="uuid",
    new_lease_id="uuid",
    lease_seconds="float8",
    attempt_seconds="float8",
    process_id="uuid",
    delay="float8",
    clock="float8",
    maybe_sent="bool",
    sent_itself="bool",
    empty_searches="int",
    bundle_limit="int",
    possible_duplicate="bool",
    maybe_overwritten="bool",
    crashed="bool",
    crashed_alone="bool",
    keeps_crashes="bool",
    free="bool",
    last_response="text",
    issues="jsonb",
    sealed_receipt="bytea",
    reset="bool",
)

_CHANGING = """
    UPDATE uploads AS u SET
        state = c.target,
        reason = c.reason,
        revision = u.revision + 1,
        updated_at = now(),
        attempts = CASE WHEN c.reset THEN 0
            ELSE u.attempts + (c.target = 'sending')::int - c.free::int END,
        crashes = CASE WHEN c.reset THEN 0
                       WHEN c.crashed THEN u.crashes + 1
                       WHEN c.source = 'sending' AND NOT c.keeps_crashes THEN 0
                       ELSE u.crashes END,
        crashes_alone = CASE WHEN c.reset THEN 0
                             WHEN c.crashed THEN u.crashes_alone + c.crashed_alone::int
                             WHEN c.source = 'sending' AND NOT c.keeps_crashes THEN 0
                             ELSE u.crashes_alone END,
        next_attempt_at = CASE WHEN c.target = 'queued'
                               THEN now() + make_interval(secs => c.delay) END,
        finish_tag = CASE WHEN c.target = 'sending'
                               OR c.reason IN ('handed_back', 'smaller_bundle')
                          THEN u.finish_tag END,
        give_up_at = CASE
            WHEN c.target = 'sending'
                THEN coalesce(u.give_up_at, now() + make_interval(secs => c.clock))
            WHEN c.target = 'parked' THEN now() + make_interval(secs => c.clock)
            WHEN c.target = 'queued' AND c.source <> 'sending' THEN NULL
            WHEN c.free THEN u.give_up_at + make_interval(secs => c.delay)
            ELSE u.give_up_at END,
        lease_id = CASE WHEN c.target = 'sending' THEN c.new_lease_id END,
        lease_until = CASE WHEN c.target = 'sending'
                           THEN now() + make_interval(secs => c.lease_seconds) END,
        attempt_until = CASE WHEN c.target = 'sending'
                             THEN now() + make_interval(secs => c.attempt_seconds) END,
        process_id = CASE WHEN c.target = 'sending' THEN c.process_id END,
        maybe_sent = coalesce(c.maybe_sent, u.maybe_sent),
        maybe_lost = u.maybe_lost AND coalesce(c.maybe_sent, true) AND NOT c.sent_itself,
        -- A redrive is somebody's decision: what is there may be overwritten.
        restored = u.restored AND NOT c.reset,
        empty_searches = CASE
            WHEN c.reason = 'lease_expired' OR (c.target = 'queued' AND c.source <> 'sending')
                THEN 0
            ELSE coalesce(c.empty_searches, u.empty_searches) END,
        bundle_limit = CASE WHEN c.reset THEN 0
                            ELSE coalesce(c.bundle_limit, u.bundle_limit) END,
        possible_duplicate = coalesce(c.possible_duplicate, u.possible_duplicate),
        maybe_overwritten = coalesce(c.maybe_overwritten, u.maybe_overwritten),
        last_response = coalesce(c.last_response, u.last_response),
        issues = CASE WHEN NOT c.reset THEN coalesce(c.issues, u.issues) END,
        cancel_requested = u.cancel_requested AND NOT c.reset,
        waiting_since = CASE WHEN c.reset THEN NULL
            WHEN c.reason = 'awaiting_reference' THEN least(coalesce(u.waiting_since, now()), now())
            ELSE u.waiting_since END,
        sealed_receipt = coalesce(c.sealed_receipt, u.sealed_receipt),
        sealed_body = CASE WHEN c.target IN ('delivered', 'cancelled', 'superseded')
                           THEN NULL ELSE u.sealed_body END,
        delivered_at = CASE WHEN c.target = 'delivered' THEN now() END
    FROM {changes} AS c
    WHERE u.id = ANY ({changes.upload_id}) AND u.id = c.upload_id AND u.state = c.source
      AND (c.source <> 'sending' OR u.lease_id = c.lease_id)
    RETURNING """


def changing(then: str, *columns: str, more: Rows | None = None) -> DirectStatement:
    """A statement that makes changes, and `then` does more with `changed`, their rows.

    Of these it reads `columns`: of `u`, the upload, or of `c`, its change. In `then`, the rows of
    `more` stand as `Rows.statement` has them.
    """
    sql = f"WITH changed AS ({_CHANGING}{', '.join(columns)}){then}"
    return _CHANGES.direct(sql if more is None else more.within(sql))


_CHANGE = changing("SELECT id FROM changed", "u.id")


async def change_state(connection: AsyncConnection, changes: Sequence[Change]) -> set[UUID]:
    """Make the changes; the ids of the uploads for which they took place.

    An upload that is missing from them was no longer in the state that its change expected.
    """
    return {row.id for row in await change_and(connection, _CHANGE, changes)}


async def change_and(
    connection: AsyncConnection,
    statement: DirectStatement,
    changes: Sequence[Change],
    values: Mapping[str, Any] = MappingProxyType({}),
) -> list[Any]:
    """`change_state` by a statement of `changing`, whose other parameters are `values`; its rows.

    Without changes it does nothing.
    """
    if not changes:
        return []
    return await statement.rows(connection, {**_CHANGES.parameter(changes), **values})
