"""What becomes of an upload after each result of an attempt: the whole table."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any, get_args
from uuid import UUID

import orjson
import pytest
from msgspec import structs

from uplift.delivery.backoff import Backoff
from uplift.delivery.outcome import Policy, change_of, receipt_of, response_of
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
from uplift.destinations.receipts import Receipt
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import (
    LoginFailed,
    NeedsAuthorization,
    TokenLimitReached,
    TokenPending,
    TokenUnavailable,
)
from uplift.ledger.leases import Claim
from uplift.ledger.transitions import Change
from uplift.lifecycle import Reason, State
from uplift.sealing import UserKey, WrappedKey
from uplift.settings import Settings

# Powers of two apart, so that each delay tells where it comes from.
POLICY = Policy(
    backoff=Backoff(first=2, limit=1000),
    settle_seconds=64,
    index_lag_seconds=128,
    hold_seconds=256,
    parked_seconds=512,
)
JITTER = 0.5
ATTEMPTS = 3
BACKOFF = 4.0  # half of 2, doubled twice
CLAIM = Claim(
    upload_id=UUID(int=1),
    lease_id=UUID(int=2),
    claimed_at=0.0,
    deadline=0.0,
    lease_ends=0.0,
    user_id=UUID(int=3),
    record_id=UUID(int=4),
    destination="oneup",
    fhir_version="R4",
    resource_type="Observation",
    sealed_body=b"",
    body_bytes=0,
    attempts=ATTEMPTS,
    maybe_sent=False,
    empty_searches=7,
    validated=False,
    past_deadline=False,
    cancel_requested=False,
    collides=False,
    app_user_id="alice",
    wrapped_key=WrappedKey("", b""),
    record_receipt=None,
)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
RECEIPT = Receipt("id-1", "2", datetime(2025, 1, 1, tzinfo=UTC))


def response(kind: ResponseKind, retry_after: float | None = None) -> Response:
    receipt = RECEIPT if kind in (ResponseKind.STORED, ResponseKind.FOUND) else None
    return Response(kind, "http_599", 599, retry_after, receipt)


def sent(kind: ResponseKind, retry_after: float | None = None) -> Sent:
    return Sent(response(kind, retry_after))


FOUND = Found(response(ResponseKind.FOUND))
STORED = sent(ResponseKind.STORED)
STORED_DIFFERENTLY = Sent(replace(STORED.response, differs=True))
OVERWROTE = Sent(STORED.response, overwrote=True)
UNKNOWN = sent(ResponseKind.UNKNOWN)
BROKEN = Failed("ValueError", writing=True)

# These end the upload, park it or hand it back, whatever else is known.
ENDS: list[tuple[LastStep, State, Reason | None, str]] = [
    (Cancelled(), State.CANCELLED, Reason.CANCELLED_BY_OWNER, "cancelled"),
    (Collides(), State.REFUSED, Reason.ID_COLLISION, "id_collision"),
    (Invalid(), State.REJECTED, Reason.INVALID, "invalid"),
    (Unvalidated(), State.REJECTED, Reason.TOO_COMPLEX, "too_complex"),
    (FOUND, State.DELIVERED, None, "found"),
    (NewerFound(), State.REFUSED, Reason.NEWER_UPSTREAM, "newer_upstream"),
    (PastDeadline(), State.EXPIRED, Reason.GAVE_UP, "gave_up"),
    (STORED, State.DELIVERED, None, "stored"),
    (
        STORED_DIFFERENTLY,
        State.DELIVERED,
        Reason.STORED_DIFFERENTLY,
        "stored_differently",
    ),
    (OVERWROTE, State.DELIVERED, Reason.OVERWROTE_UPSTREAM, "overwrote_upstream"),
    (
        DeletedFound(response(ResponseKind.ABSENT)),
        State.REFUSED,
        Reason.DELETED_UPSTREAM,
        "deleted_upstream",
    ),
    (
        ForeignFound(response(ResponseKind.FOUND)),
        State.REFUSED,
        Reason.CHANGED_UPSTREAM,
        "changed_upstream",
    ),
    (sent(ResponseKind.REFUSED), State.REFUSED, Reason.UPSTREAM_REFUSED, "http_599"),
    (Stopped(), State.QUEUED, Reason.HANDED_BACK, "handed_back"),
    (
        NoToken(NeedsAuthorization("gone")),
        State.PARKED,
        Reason.NEEDS_AUTHORIZATION,
        "needs_authorization",
    ),
]

# These are attempted again after a delay, unless the time to give up has passed.
RETRIES: list[tuple[LastStep, Reason, str, float]] = [
    (CannotOpen(), Reason.HELD, "sealed", 256),
    (NoDestination(), Reason.HELD, "no_destination", 256),
    (AwaitsReference(), Reason.AWAITING_REFERENCE, "awaiting_reference", 3),
    (Unprepared(response(ResponseKind.UNKNOWN)), Reason.RETRY, "http_599", BACKOFF),
    (Unprepared(response(ResponseKind.BUSY, 90)), Reason.RETRY, "http_599", 90),
    (Unprepared(response(ResponseKind.HOLD)), Reason.HELD, "http_599", 256),
    (Unprepared(response(ResponseKind.REFUSED)), Reason.HELD, "http_599", 256),
    (sent(ResponseKind.LOCKED), Reason.RETRY, "http_599", BACKOFF),
    (sent(ResponseKind.BUNDLE_REFUSED), Reason.SMALLER_BUNDLE, "http_599", 0),
    (sent(ResponseKind.BUNDLE_REFUSED, 90), Reason.SMALLER_BUNDLE, "http_599", 90),
    (sent(ResponseKind.CONFLICT), Reason.RETRY, "http_599", BACKOFF),
    (NoToken(LoginFailed("http_401")), Reason.HELD, "login_http_401", 256),
    (SearchEmpty(), Reason.SETTLING, "search_empty", 128),
    (ClockStepped(), Reason.SETTLING, "clock_stepped", 64),
    (
        LookUpFailed(response(ResponseKind.UNKNOWN)),
        Reason.SETTLING,
        "look_up_http_599",
        BACKOFF,
    ),
    (
        LookUpFailed(response(ResponseKind.UNKNOWN, 90)),
        Reason.SETTLING,
        "look_up_http_599",
        90,
    ),
    (UNKNOWN, Reason.SETTLING, "http_599", 64),
    (sent(ResponseKind.UNKNOWN, 90), Reason.SETTLING, "http_599", 90),
    (sent(ResponseKind.NOT_SENT), Reason.RETRY, "http_599", BACKOFF),
    (sent(ResponseKind.BUSY), Reason.RETRY, "http_599", BACKOFF),
    (sent(ResponseKind.BUSY, 90), Reason.RETRY, "http_599", 90),
    (sent(ResponseKind.BUSY, 1), Reason.RETRY, "http_599", BACKOFF),
    (sent(ResponseKind.UNAUTHORIZED), Reason.HELD, "http_599", 256),
    (sent(ResponseKind.HOLD), Reason.HELD, "http_599", 256),
    (sent(ResponseKind.HOLD, 900), Reason.HELD, "http_599", 900),
    (sent(ResponseKind.ABSENT), Reason.HELD, "http_599", 256),
    (sent(ResponseKind.FOUND), Reason.HELD, "http_599", 256),
    (sent(ResponseKind.DELETED), Reason.HELD, "http_599", 256),
    (NoToken(TokenUnavailable("no_answer")), Reason.NO_TOKEN, "no_token", BACKOFF),
    (NoToken(TokenUnavailable("no_answer", retry_after=90)), Reason.NO_TOKEN, "no_token", 90),
    (
        NoToken(TokenPending("another", retry_after=10, spread=6)),
        Reason.AWAITING_TOKEN,
        "another",
        13,
    ),
    (
        NoToken(TokenLimitReached("spent", retry_after=10, spread=6)),
        Reason.AWAITING_TOKEN,
        "spent",
        13,
    ),
    (Failed("ValueError"), Reason.RETRY, "failed_ValueError", BACKOFF),
    (BROKEN, Reason.SETTLING, "failed_ValueError", 64),
]

STEPS = [each[0] for each in ENDS] + [each[0] for each in RETRIES]


def change(
    last: LastStep, *, in_doubt: bool = False, issues: Any = None, **claim: Any
) -> tuple[Change, str]:
    return change_of(
        structs.replace(CLAIM, **claim), Result(last, issues, in_doubt), POLICY, jitter=JITTER
    )


def name(value: Any) -> str:
    if isinstance(value, Sent):
        return f"Sent {value.response.kind}"
    if isinstance(value, NoToken):
        return type(value.error).__name__
    return type(value).__name__ if isinstance(value, get_args(LastStep)) else ""


def test_the_table_has_every_last_step_and_every_kind_of_response() -> None:
    assert {type(step) for step in STEPS} == set(get_args(LastStep))
    kinds = {step.response.kind for step in STEPS if isinstance(step, Sent)}
    assert kinds == set(ResponseKind)


@pytest.mark.parametrize("past_deadline", [False, True])
@pytest.mark.parametrize(("last", "state", "reason", "code"), ENDS, ids=name)
def test_an_end_is_the_same_before_and_after_the_deadline(
    last: LastStep, state: State, reason: Reason | None, code: str, past_deadline: bool
) -> None:
    made, said = change(last, past_deadline=past_deadline)
    assert (made.target, made.reason, said) == (state, reason, code)
    assert (made.delay, made.free) == (0, False)
    assert made.clock == (512 if state is State.PARKED else None)


@pytest.mark.parametrize(("last", "reason", "code", "delay"), RETRIES, ids=name)
def test_a_retry_waits_for_its_backoff_and_its_floor(
    last: LastStep, reason: Reason, code: str, delay: float
) -> None:
    made, said = change(last)
    assert (made.target, made.reason, said, made.delay) == (State.QUEUED, reason, code, delay)
    waits = reason in (Reason.AWAITING_TOKEN, Reason.AWAITING_REFERENCE, Reason.SMALLER_BUNDLE)
    assert (made.clock, made.free) == (None, waits)


@pytest.mark.parametrize(("last", "reason", "code", "delay"), RETRIES, ids=name)
def test_past_the_deadline_a_retry_expires_with_its_code(
    last: LastStep, reason: Reason, code: str, delay: float
) -> None:
    made, said = change(last, past_deadline=True)
    assert (made.target, made.reason, said) == (State.EXPIRED, Reason.GAVE_UP, code)
    assert (made.delay, made.clock, made.free) == (0, None, False)


@pytest.mark.parametrize("last", STEPS, ids=name)
def test_it_may_be_sent_as_long_as_that_is_not_excluded(last: LastStep) -> None:
    unknown = last in (UNKNOWN, sent(ResponseKind.UNKNOWN, 90), BROKEN)
    flags = product((False, True), repeat=3)
    for maybe_sent, in_doubt, past_deadline in flags:
        made, _ = change(
            last, maybe_sent=maybe_sent, in_doubt=in_doubt, past_deadline=past_deadline
        )
        delivered = made.target is State.DELIVERED
        assert made.maybe_sent is (not delivered and (unknown or maybe_sent or in_doubt))


@pytest.mark.parametrize("last", STEPS, ids=name)
def test_only_a_second_send_that_may_have_arrived_is_a_possible_duplicate(last: LastStep) -> None:
    arrived = last in (
        STORED,
        STORED_DIFFERENTLY,
        OVERWROTE,
        UNKNOWN,
        sent(ResponseKind.UNKNOWN, 90),
        BROKEN,
    )
    # None keeps what the upload has.
    assert change(last, maybe_sent=True)[0].possible_duplicate is None
    made, _ = change(last, maybe_sent=True, in_doubt=True)
    assert made.possible_duplicate is (True if arrived else None)


@pytest.mark.parametrize("last", STEPS, ids=name)
def test_empty_searches_count_up_and_begin_again_with_each_unknown_outcome(last: LastStep) -> None:
    made, _ = change(last)
    if isinstance(last, SearchEmpty):
        assert made.empty_searches == 8
    elif last in (UNKNOWN, sent(ResponseKind.UNKNOWN, 90), BROKEN):
        assert made.empty_searches == 0
    else:
        assert made.empty_searches is None


@pytest.mark.parametrize("last", STEPS, ids=name)
def test_the_last_response_is_its_code_or_else_the_attempts(last: LastStep) -> None:
    made, code = change(last)
    answered = isinstance(last, Sent | Found | DeletedFound | ForeignFound | Unprepared)
    assert made.last_response == ("http_599" if answered else code)
    found = response_of(last)
    assert (found.status_code if found else None) == (599 if answered else None)


@pytest.mark.parametrize("last", STEPS, ids=name)
def test_every_change_is_of_the_lease_and_keeps_the_issues(last: LastStep) -> None:
    issues: dict[str, Any] = {"issue": []}
    made, _ = change(last, issues=issues)
    assert (made.upload_id, made.lease_id) == (CLAIM.upload_id, CLAIM.lease_id)
    assert (made.source, made.issues) == (State.SENDING, issues)
    assert not made.crashed
    assert not made.reset


def test_the_sealed_receipt_is_in_the_change() -> None:
    made, _ = change_of(CLAIM, Result(STORED), POLICY, jitter=JITTER, sealed_receipt=b"sealed")
    assert made.sealed_receipt == b"sealed"


@pytest.mark.parametrize("jitter", [0.0, 0.25, 1.0])
def test_the_jitter_is_the_part_of_the_longest_wait(jitter: float) -> None:
    retried, _ = change_of(CLAIM, Result(sent(ResponseKind.BUSY)), POLICY, jitter=jitter)
    assert retried.delay == jitter * 8
    pending = NoToken(TokenPending("another", retry_after=10, spread=6))
    waiting, _ = change_of(CLAIM, Result(pending), POLICY, jitter=jitter)
    assert waiting.delay == 10 + jitter * 6


def test_the_policy_is_that_of_the_settings() -> None:
    settings = Settings(
        backoff_first_seconds=1,
        max_backoff_seconds=2,
        settle_seconds=3,
        index_lag_seconds=4,
        hold_seconds=5,
        parked_seconds=6,
    )
    assert Policy.of(settings) == Policy(
        backoff=Backoff(first=1, limit=2),
        settle_seconds=3,
        index_lag_seconds=4,
        hold_seconds=5,
        parked_seconds=6,
    )


REPEATS = replace(POLICY, repeats=True)


@pytest.mark.parametrize("last", [UNKNOWN, BROKEN], ids=name)
def test_what_is_stored_once_however_often_it_is_sent_waits_for_nothing_but_its_backoff(
    last: LastStep,
) -> None:
    made, _ = change_of(CLAIM, Result(last), REPEATS, jitter=JITTER)
    assert (made.reason, made.delay) == (Reason.RETRY, BACKOFF)
    assert made.maybe_sent is True


# --- the receipt ---------------------------------------------------------------------------------

OPENED = Opened(CLAIM, UserKey.generate(), b"body")


@pytest.mark.parametrize("last", [STORED, FOUND], ids=name)
def test_the_receipt_has_what_the_destination_calls_it_and_the_digest_of_the_body(
    last: LastStep,
) -> None:
    receipt = receipt_of(OPENED, Result(last), NOW)
    assert receipt is not None
    assert orjson.loads(receipt) == {
        "type": "R4/Observation",
        "id": "id-1",
        "version": "2",
        "stored_at": "2025-01-01T00:00:00+00:00",
        "sha256": hashlib.sha256(b"body").hexdigest(),
    }


def test_the_receipt_of_a_rewritten_record_has_both_digests() -> None:
    receipt = receipt_of(OPENED, Result(STORED, sent=b"rewritten"), NOW)
    assert receipt is not None
    known = orjson.loads(receipt)
    assert known["sha256"] == hashlib.sha256(b"body").hexdigest()
    assert known["sent_sha256"] == hashlib.sha256(b"rewritten").hexdigest()


def test_a_receipt_without_a_time_has_the_time_of_the_response() -> None:
    stored = Response(ResponseKind.STORED, "http_201", 201, receipt=Receipt(None, None))
    receipt = receipt_of(OPENED, Result(Sent(stored)), NOW)
    assert receipt is not None
    assert orjson.loads(receipt)["stored_at"] == "2026-01-02T00:00:00+00:00"


DELIVERIES = (STORED, STORED_DIFFERENTLY, OVERWROTE, FOUND)


@pytest.mark.parametrize("last", [step for step in STEPS if step not in DELIVERIES], ids=name)
def test_only_a_delivered_upload_has_a_receipt(last: LastStep) -> None:
    assert receipt_of(OPENED, Result(last), NOW) is None


@pytest.mark.parametrize(
    ("kind", "together", "limit"),
    [
        (ResponseKind.STORED, 50, 6),
        (ResponseKind.BUSY, 50, 6),
        (ResponseKind.NOT_SENT, 50, 6),
        (ResponseKind.CONFLICT, 50, 6),
        (ResponseKind.REFUSED, 50, 6),
        (ResponseKind.UNKNOWN, 50, None),
        (ResponseKind.UNKNOWN, 1, 6),
        (ResponseKind.BUNDLE_REFUSED, 50, 6),
        (ResponseKind.BUNDLE_REFUSED, 6, 1),
    ],
)
def test_only_what_a_bundle_came_to_makes_the_next_one_smaller(
    kind: ResponseKind, together: int, limit: int | None
) -> None:
    made, _ = change(replace(sent(kind), together=together), bundle_limit=6)
    assert made.bundle_limit == limit, "None is what the claim has written"


def test_a_write_that_broke_leaves_what_the_claim_wrote_and_all_else_takes_it_back() -> None:
    assert change(BROKEN, bundle_limit=6)[0].bundle_limit is None
    assert change(Stopped(), bundle_limit=6)[0].bundle_limit == 6
    assert change(AwaitsReference(), bundle_limit=0)[0].bundle_limit == 0
