"""How an attempt ends: from what it learnt to one change of its upload. Pure but for sealing."""

import hashlib
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from uplift.delivery.backoff import Backoff
from uplift.destinations.responses import Receipt, Response, ResponseKind
from uplift.errors import TokenPending
from uplift.ledger.leases import Claim, Outcome
from uplift.ledger.transitions import Change
from uplift.ledger.uploads import receipt_context
from uplift.lifecycle import Reason, State
from uplift.sealing import UserKey
from uplift.settings import Settings


@dataclass(slots=True)
class Facts:
    """What an attempt learns on its way.

    `maybe_sent` is whether 1upHealth may hold this content; `again` whether it was sent before with
    an unknown outcome: what looks like nothing now may still be stored later, so that sending it
    may double it; `writing` whether this attempt has begun to send; `looks` how many searches
    found nothing, where this attempt changes that.
    """

    claim: Claim
    key: UserKey
    started: float  # on time.monotonic
    deadline: float  # on time.monotonic
    maybe_sent: bool
    again: bool = False
    writing: bool = False
    empty_searches: int | None = None
    body: bytes = field(default=b"", repr=False)
    issues: dict[str, Any] | None = None


class Endings:
    """Ends attempts as the settings have it."""

    def __init__(self, settings: Settings) -> None:
        self._backoff = Backoff(settings.backoff_first_seconds, settings.max_backoff_seconds)
        self._settle_seconds = settings.settle_seconds
        self._index_lag_seconds = settings.index_lag_seconds
        self._hold_seconds = settings.hold_seconds
        self._parked_seconds = settings.parked_seconds

    def of_write(self, facts: Facts, response: Response) -> Outcome:
        """By the answer to a create or an update."""
        wait = response.retry_after or 0.0
        match response.kind:
            case ResponseKind.STORED:
                return self.delivered(facts, response, "stored")
            case ResponseKind.UNKNOWN:
                self._may_be_sent(facts)
                floor = max(self._settle_seconds, wait)
                return self.again(
                    facts, Reason.SETTLING, response.code, response=response, floor=floor
                )
            case ResponseKind.NOT_SENT | ResponseKind.BUSY:
                return self.again(facts, Reason.RETRY, response.code, response=response, floor=wait)
            case ResponseKind.REFUSED:
                return _end(
                    facts, State.REFUSED, Reason.UPSTREAM_REFUSED, response.code, response=response
                )
            case (
                ResponseKind.UNAUTHORIZED
                | ResponseKind.HOLD
                | ResponseKind.ABSENT
                | ResponseKind.FOUND
            ):
                return self.held(facts, response.code, response=response, floor=wait)

    def _may_be_sent(self, facts: Facts) -> None:
        facts.maybe_sent = True
        facts.empty_searches = 0

    def looked_in_vain(self, facts: Facts, response: Response) -> Outcome:
        """A look failed: nothing is sent, and it is looked for later."""
        code = f"look_{response.code}"
        return self.again(facts, Reason.SETTLING, code, floor=response.retry_after or 0.0)

    def search_again(self, facts: Facts) -> Outcome:
        """A search found nothing: once 1upHealth's index has had its time, it is made again."""
        facts.empty_searches = facts.claim.empty_searches + 1
        return self.again(facts, Reason.SETTLING, "search_empty", floor=self._index_lag_seconds)

    def cancelled(self, facts: Facts) -> Outcome:
        """Its owner withdrew it."""
        return _end(facts, State.CANCELLED, Reason.CANCELLED_BY_OWNER, "cancelled")

    def collided(self, facts: Facts) -> Outcome:
        """Another record is, or will be, at 1upHealth under its type and id."""
        return _end(facts, State.REFUSED, Reason.ID_COLLISION, "id_collision")

    def delivered(self, facts: Facts, response: Response, outcome: str) -> Outcome:
        """1upHealth has it."""
        facts.maybe_sent = False
        return _end(
            facts, State.DELIVERED, None, outcome, response=response, receipt=response.receipt
        )

    def rejected(self, facts: Facts) -> Outcome:
        """It is not valid FHIR."""
        return _end(facts, State.REJECTED, Reason.INVALID, "invalid")

    def overtaken(self, facts: Facts) -> Outcome:
        """1upHealth has something newer, which the ledger has forgotten: only a person can say."""
        return _end(facts, State.REFUSED, Reason.NEWER_UPSTREAM, "newer_upstream")

    def parked(self, facts: Facts) -> Outcome:
        """Its person must consent anew."""
        return _end(
            facts,
            State.PARKED,
            Reason.NEEDS_AUTHORIZATION,
            "needs_authorization",
            clock=self._parked_seconds,
        )

    def expired(self, facts: Facts, outcome: str = "gave_up") -> Outcome:
        """Its time is up."""
        return _end(facts, State.EXPIRED, Reason.GAVE_UP, outcome)

    def handed_back(self, facts: Facts) -> Outcome:
        """This process stops: another may send it at once."""
        return _end(facts, State.QUEUED, Reason.HANDED_BACK, "handed_back")

    def held(
        self, facts: Facts, outcome: str, *, response: Response | None = None, floor: float = 0.0
    ) -> Outcome:
        """Slow retries: something is wrong with the deployment rather than with the record."""
        floor = max(self._hold_seconds, floor)
        return self.again(facts, Reason.HELD, outcome, response=response, floor=floor)

    def failed(self, facts: Facts, error: Exception) -> Outcome:
        """By an error of our own. Only its type is kept: its text may quote the record."""
        outcome = f"failed_{type(error).__name__}"
        if facts.writing:
            self._may_be_sent(facts)
            return self.again(facts, Reason.SETTLING, outcome, floor=self._settle_seconds)
        return self.again(facts, Reason.RETRY, outcome)

    def awaiting_token(self, facts: Facts, error: TokenPending) -> Outcome:
        """Queue it for its turn. Nothing was tried, so no attempt is spent and no back-off grows;
        were all to come back at once, most would only be told the same again.
        """
        if facts.claim.past_deadline:
            return self.expired(facts, error.code)
        delay = error.retry_after + random.uniform(0.0, error.spread)  # noqa: S311
        return _end(facts, State.QUEUED, Reason.AWAITING_TOKEN, error.code, delay=delay, free=True)

    def again(
        self,
        facts: Facts,
        reason: Reason,
        outcome: str,
        *,
        response: Response | None = None,
        floor: float = 0.0,
    ) -> Outcome:
        """Try again after a back-off of at least `floor` seconds, unless its time is up."""
        if facts.claim.past_deadline:
            return self.expired(facts, outcome)
        delay = self._backoff.delay(facts.claim.attempts, floor=floor)
        return _end(facts, State.QUEUED, reason, outcome, response=response, delay=delay)


# Only these may have brought it to 1upHealth a second time.
_SENT = frozenset({ResponseKind.STORED, ResponseKind.UNKNOWN})
_KEEP_THE_QUESTION = frozenset(State) - {State.DELIVERED}


def _end(
    facts: Facts,
    target: State,
    reason: Reason | None,
    outcome: str,
    *,
    response: Response | None = None,
    receipt: Receipt | None = None,
    delay: float = 0.0,
    clock: float | None = None,
    free: bool = False,
) -> Outcome:
    claim = facts.claim
    named = _sealable(receipt, facts.body) if receipt else None
    sent = facts.writing and (response is None or response.kind in _SENT)
    if facts.again and target in _KEEP_THE_QUESTION:
        # What was not sent after the look: the next attempt, or a redrive's, looks and marks.
        facts.maybe_sent = True
    return Outcome(
        claim=claim,
        change=Change(
            upload_id=claim.upload_id,
            source=State.SENDING,
            target=target,
            reason=reason,
            lease_id=claim.lease_id,
            delay=delay,
            clock=clock,
            free=free,
            maybe_sent=facts.maybe_sent,
            empty_searches=facts.empty_searches,
            possible_duplicate=True if facts.again and sent else None,
            last_response=response.code if response else outcome,
            issues=facts.issues,
            sealed_receipt=(
                facts.key.seal(named, receipt_context(claim.upload_id)) if named else None
            ),
        ),
        outcome=outcome,
        status_code=response.status_code if response else None,
        duration=time.monotonic() - facts.started,
        record_receipt=(facts.key.seal(named, receipt_context(claim.record_id)) if named else None),
    )


def _sealable(receipt: Receipt, body: bytes) -> bytes:
    """The receipt as JSON. Its digest is of the bytes sent, so it is health data: seal it."""
    stored_at = receipt.stored_at or datetime.now(UTC)
    return orjson.dumps(
        {
            "id": receipt.id,
            "version": receipt.version,
            "stored_at": stored_at.isoformat(),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
    )
