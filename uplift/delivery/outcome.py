"""What becomes of an upload after an attempt. Pure: a result in, one change of the upload out."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from uplift.delivery.backoff import Backoff
from uplift.delivery.results import (
    AwaitsReference,
    Cancelled,
    CannotOpen,
    ClockStepped,
    Collides,
    DeletedFound,
    Failed,
    ForeignFound,
    Found,
    Invalid,
    LastStep,
    LookUpFailed,
    NewerFound,
    NoDestination,
    NoToken,
    Opened,
    PastDeadline,
    Result,
    SearchEmpty,
    Sent,
    Stopped,
    Unprepared,
    Unvalidated,
)
from uplift.delivery.sharing import after_refused
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import LoginFailed, NeedsAuthorization, TokenPending, TokenUnavailable
from uplift.fhir.issues import ISSUES_KEPT
from uplift.ledger.leases import Claim
from uplift.ledger.transitions import Change
from uplift.lifecycle import Reason, State
from uplift.settings import Settings

# How often a record asks whether what it refers to is there. So it costs a claim now and then.
REFERENCE_POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings that decide how long an upload waits. Times in seconds.

    `repeats` is whether an upload may be sent again at once after an unknown outcome.
    """

    backoff: Backoff
    settle_seconds: float
    index_lag_seconds: float
    hold_seconds: float
    parked_seconds: float
    repeats: bool = False

    @classmethod
    def of(cls, settings: Settings, *, repeats: bool = False) -> "Policy":
        """As the settings say."""
        return cls(
            repeats=repeats,
            backoff=Backoff(settings.backoff_first_seconds, settings.max_backoff_seconds),
            settle_seconds=settings.settle_seconds,
            index_lag_seconds=settings.index_lag_seconds,
            hold_seconds=settings.hold_seconds,
            parked_seconds=settings.parked_seconds,
        )


@dataclass(frozen=True, slots=True)
class _Next:
    """Where the upload goes, and the code of the attempt for its history. Times in seconds."""

    state: State
    reason: Reason | None
    code: str
    delay: float = 0.0
    clock: float | None = None
    free: bool = False


@dataclass(frozen=True, slots=True)
class _Retry:
    """The upload is attempted again after a backoff of at least `floor` seconds."""

    reason: Reason
    code: str
    floor: float = 0.0


@dataclass(frozen=True, slots=True)
class _Wait:
    """Nothing was tried: the upload waits for so many seconds, and the attempt is free."""

    reason: Reason
    code: str
    delay: float


# Every outcome that does not depend on anything else, in the order of an attempt's steps.
_CANCELLED = _Next(State.CANCELLED, Reason.CANCELLED_BY_OWNER, "cancelled")
_COLLIDES = _Next(State.REFUSED, Reason.ID_COLLISION, "id_collision")
_INVALID = _Next(State.REJECTED, Reason.INVALID, "invalid")
_TOO_COMPLEX = _Next(State.REJECTED, Reason.TOO_COMPLEX, "too_complex")
_FOUND = _Next(State.DELIVERED, None, "found")
# Only a person can decide which of the two contents is right.
_NEWER_FOUND = _Next(State.REFUSED, Reason.NEWER_UPSTREAM, "newer_upstream")
_DELETED = _Next(State.REFUSED, Reason.DELETED_UPSTREAM, "deleted_upstream")
_CHANGED = _Next(State.REFUSED, Reason.CHANGED_UPSTREAM, "changed_upstream")
_OVERWROTE = _Next(State.DELIVERED, Reason.OVERWROTE_UPSTREAM, "overwrote_upstream")
_PAST_DEADLINE = _Next(State.EXPIRED, Reason.GAVE_UP, "gave_up")
_STOPPED = _Next(State.QUEUED, Reason.HANDED_BACK, "handed_back")
_STORED = _Next(State.DELIVERED, None, "stored")
# It was sent again, although no look-up could tell whether it was there.
_STORED_UNSEEN = _Next(State.DELIVERED, Reason.CANNOT_LOOK_UP, "stored")
_STORED_DIFFERENTLY = _Next(State.DELIVERED, Reason.STORED_DIFFERENTLY, "stored_differently")

# After one of these, nobody knows more about whether the record crashes its worker.
_BEFORE_SENDING = SearchEmpty | ClockStepped | LookUpFailed | NoToken | Stopped

# Only these responses leave open or prove that it was stored.
_ARRIVED = frozenset({ResponseKind.STORED, ResponseKind.UNKNOWN})


def change_of(
    claim: Claim,
    result: Result,
    policy: Policy,
    *,
    jitter: float,
    sealed_receipt: bytes | None = None,
) -> tuple[Change, str]:
    """The change of the claimed upload that this result leads to, and the code for its history.

    `jitter` is random, from 0 to 1; `sealed_receipt` is `receipt_of` sealed for the upload.
    """
    last = result.last
    then = _next(claim, last, policy, jitter)
    if then is _STORED and not result.can_tell:
        then = _STORED_UNSEEN
    response = response_of(last)
    unknown = _is_unknown(last)
    arrived = unknown or (isinstance(last, Sent) and last.response.kind in _ARRIVED)
    empty_searches = 0 if unknown else None
    if isinstance(last, SearchEmpty):
        empty_searches = claim.empty_searches + 1
    change = Change(
        upload_id=claim.upload_id,
        source=State.SENDING,
        target=then.state,
        reason=then.reason,
        lease_id=claim.lease_id,
        delay=then.delay,
        clock=then.clock,
        free=then.free,
        sent_itself=unknown,
        keeps_crashes=isinstance(last, _BEFORE_SENDING),
        # What is in doubt stays so until it is delivered: the next attempt looks it up, or that
        # of a redrive.
        maybe_sent=then.state is not State.DELIVERED
        and (unknown or result.in_doubt or claim.maybe_sent),
        empty_searches=empty_searches,
        bundle_limit=_bundle_limit(claim, last),
        possible_duplicate=True if result.in_doubt and arrived else None,
        last_response=response.code if response is not None else then.code,
        issues=_issues(result, response),
        sealed_receipt=sealed_receipt,
    )
    return change, then.code


def _issues(result: Result, response: Response | None) -> dict[str, Any] | None:
    """What validation found, after what the destination says if it refused the record."""
    if response is None or not response.refusal:
        return result.issues
    own: dict[str, Any] = result.issues or {"total": 0, "issue": []}
    return {
        "total": own["total"] + len(response.refusal),
        "issue": [*response.refusal, *own["issue"]][:ISSUES_KEPT],
    }


def _bundle_limit(claim: Claim, last: LastStep) -> int | None:
    """The largest Bundle that it may join from now on; None: as the claim has written it."""
    if isinstance(last, Sent) and last.response.kind is ResponseKind.BUNDLE_REFUSED:
        return after_refused(last.together, last.response.status_code)
    if _is_unknown(last) and not (isinstance(last, Sent) and last.together == 1):
        return None
    return claim.bundle_limit


def response_of(last: LastStep) -> Response | None:
    """The response that decided, if one did."""
    if isinstance(last, Sent | Found | DeletedFound | ForeignFound | Unprepared):
        return last.response
    return None


def receipt_of(opened: Opened, result: Result, now: datetime) -> bytes | None:
    """What the destination calls the delivered resource, as JSON; None if it is not delivered.

    `sha256` is of the upload's body, `sent_sha256` of what was sent if that is another one: both
    are health data, so seal it.
    """
    match result.last:
        case Found(response):
            receipt = response.receipt
        case Sent(response) if response.kind is ResponseKind.STORED:
            receipt = response.receipt
        case _:
            receipt = None
    if receipt is None:
        return None
    known = {
        "type": f"{opened.claim.fhir_version}/{opened.claim.resource_type}",
        "id": receipt.id,
        "version": receipt.version,
        "stored_at": (receipt.stored_at or now).isoformat(),
        "sha256": hashlib.sha256(opened.body).hexdigest(),
    }
    if result.sent is not None:
        known["sent_sha256"] = hashlib.sha256(result.sent).hexdigest()
    return orjson.dumps(known)


def may_be_late(last: LastStep) -> bool:
    """Whether what was sent may be stored later, over a newer version."""
    return _is_unknown(last) and not (isinstance(last, Sent) and last.conditional)


def _is_unknown(last: LastStep) -> bool:
    """Whether this attempt wrote and does not know whether it was stored."""
    match last:
        case Sent(response):
            return response.kind is ResponseKind.UNKNOWN
        case Failed(writing=writing):
            return writing
    return False


def _next(claim: Claim, last: LastStep, policy: Policy, jitter: float) -> _Next:
    then = _then(last, policy, jitter)
    if isinstance(then, _Next):
        return then
    if claim.past_deadline:
        return _Next(State.EXPIRED, Reason.GAVE_UP, then.code)
    if isinstance(then, _Wait):
        return _Next(State.QUEUED, then.reason, then.code, delay=then.delay, free=True)
    delay = policy.backoff.delay(claim.attempts, jitter, floor=then.floor)
    return _Next(State.QUEUED, then.reason, then.code, delay=delay)


def _then(last: LastStep, policy: Policy, jitter: float) -> _Next | _Retry | _Wait:  # noqa: C901  one row a step
    match last:
        case Sent(response, overwrote):
            return _after_write(response, policy, overwrote=overwrote)
        case Unprepared(response):
            return _unprepared(response, policy)
        case AwaitsReference():
            # At a random time: what goes first may end at any.
            delay = REFERENCE_POLL_SECONDS * (1 + jitter)
            return _Wait(Reason.AWAITING_REFERENCE, "awaiting_reference", delay)
        case DeletedFound():
            return _DELETED
        case ForeignFound():
            return _CHANGED
        case Cancelled():
            return _CANCELLED
        case Collides():
            return _COLLIDES
        case NoDestination():
            return _Retry(Reason.HELD, "no_destination", policy.hold_seconds)
        case CannotOpen():
            return _Retry(Reason.HELD, "sealed", policy.hold_seconds)
        case Invalid():
            return _INVALID
        case Unvalidated():
            return _TOO_COMPLEX
        case Found():
            return _FOUND
        case NewerFound():
            return _NEWER_FOUND
        case SearchEmpty():
            return _Retry(Reason.SETTLING, "search_empty", policy.index_lag_seconds)
        case ClockStepped():
            return _Retry(Reason.SETTLING, "clock_stepped", policy.settle_seconds)
        case LookUpFailed(response):
            code = f"look_up_{response.code}"
            return _Retry(Reason.SETTLING, code, response.retry_after or 0.0)
        case PastDeadline():
            return _PAST_DEADLINE
        case Stopped():
            return _STOPPED
        case NoToken(error):
            return _without_token(error, policy, jitter)
        case Failed(error, writing):
            if writing and not policy.repeats:
                return _Retry(Reason.SETTLING, f"failed_{error}", policy.settle_seconds)
            return _Retry(Reason.RETRY, f"failed_{error}")


def _after_write(response: Response, policy: Policy, *, overwrote: bool) -> _Next | _Retry | _Wait:
    floor = response.retry_after or 0.0
    match response.kind:
        case ResponseKind.STORED if overwrote:
            return _OVERWROTE
        case ResponseKind.STORED:
            return _STORED_DIFFERENTLY if response.differs else _STORED
        case ResponseKind.BUNDLE_REFUSED:
            return _Wait(Reason.SMALLER_BUNDLE, response.code, floor)
        case ResponseKind.REFUSED:
            return _Next(State.REFUSED, Reason.UPSTREAM_REFUSED, response.code)
        case ResponseKind.UNKNOWN if not policy.repeats:
            return _Retry(Reason.SETTLING, response.code, max(policy.settle_seconds, floor))
        case (
            ResponseKind.UNKNOWN
            | ResponseKind.NOT_SENT
            | ResponseKind.BUSY
            | ResponseKind.LOCKED
            | ResponseKind.CONFLICT
        ):
            return _Retry(Reason.RETRY, response.code, floor)
        case (
            ResponseKind.UNAUTHORIZED
            | ResponseKind.HOLD
            | ResponseKind.ABSENT
            | ResponseKind.FOUND
            | ResponseKind.DELETED
        ):
            # Something is wrong with the deployment rather than with the record.
            return _Retry(Reason.HELD, response.code, max(policy.hold_seconds, floor))


def _unprepared(response: Response, policy: Policy) -> _Retry:
    floor = response.retry_after or 0.0
    match response.kind:
        case (
            ResponseKind.UNKNOWN
            | ResponseKind.NOT_SENT
            | ResponseKind.BUSY
            | ResponseKind.LOCKED
            | ResponseKind.CONFLICT
        ):
            return _Retry(Reason.RETRY, response.code, floor)
    return _Retry(Reason.HELD, response.code, max(policy.hold_seconds, floor))


def _without_token(
    error: NeedsAuthorization | TokenUnavailable, policy: Policy, jitter: float
) -> _Next | _Retry | _Wait:
    match error:
        case NeedsAuthorization():
            clock = policy.parked_seconds
            reason = Reason.NEEDS_AUTHORIZATION
            return _Next(State.PARKED, reason, "needs_authorization", clock=clock)
        case LoginFailed():
            # The deployment's own login: no person has anything to do with it.
            return _Retry(Reason.HELD, f"login_{error.code}", policy.hold_seconds)
        case TokenPending():
            # At a random time: if all came back at once, most would only learn the same again.
            delay = error.retry_after + jitter * error.spread
            return _Wait(Reason.AWAITING_TOKEN, error.code, delay)
    return _Retry(Reason.NO_TOKEN, "no_token", error.retry_after or 0.0)
