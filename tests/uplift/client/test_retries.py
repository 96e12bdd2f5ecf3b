"""When a call is repeated."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from uplift.client.messages import NoReply, Reply
from uplift.client.retries import Policy

_UNSENT = NoReply("nothing listens there", maybe_received=False)
_BROKEN = NoReply("the connection breaks", maybe_received=True)


def _reply(status: int, retry_after: str | None = None) -> Reply:
    return Reply(status, {"retry-after": retry_after} if retry_after is not None else {}, b"")


def _pause(
    reply: Reply | NoReply,
    *,
    tries: int = 1,
    elapsed: float = 0.0,
    repeatable: bool = True,
    spread: float = 1.0,
) -> float | None:
    return Policy(patience=100, first_pause=0.5).pause(
        reply, tries=tries, elapsed=elapsed, repeatable=repeatable, spread=spread
    )


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_api_is_asked_again(status: int) -> None:
    assert _pause(_reply(status)) == 0.5


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 409, 413, 415, 422, 501])
def test_what_does_not_pass_is_not_repeated(status: int) -> None:
    assert _pause(_reply(status)) is None


@pytest.mark.parametrize(("tries", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 15.0), (99, 15)])
def test_pauses_double_up_to_a_limit(tries: int, longest: float) -> None:
    assert _pause(_BROKEN, tries=tries) == longest
    assert _pause(_BROKEN, tries=tries, spread=0.0) == 0.0


def test_retry_after_is_a_floor() -> None:
    assert _pause(_reply(429, "7"), spread=0.0) == 7
    assert _pause(_reply(429, "7"), spread=1.0) == 7.5


def test_what_takes_longer_than_the_patience_is_not_waited_for() -> None:
    assert _pause(_reply(503, "101")) is None
    assert _pause(_reply(503, "10"), elapsed=95) is None
    assert _pause(_BROKEN, elapsed=100) is None


def test_an_api_that_goes_on_failing_is_asked_three_times() -> None:
    assert _pause(_reply(500), tries=2) is not None
    assert _pause(_reply(500), tries=3) is None


@pytest.mark.parametrize(
    ("reply", "repeated"),
    [
        (_UNSENT, True),
        (_reply(429), True),
        (_reply(503), True),
        (_BROKEN, False),
        (_reply(500), False),
        (_reply(502), False),
        (_reply(504), False),
    ],
)
def test_what_may_not_happen_twice_is_repeated_only_if_it_did_not_happen(
    reply: Reply | NoReply, *, repeated: bool
) -> None:
    assert (_pause(reply, repeatable=False) is not None) is repeated


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        ("-3", None),
        ("soon", None),
        ("²", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
    ],
)
def test_retry_after_is_read(value: str | None, seconds: float | None) -> None:
    assert _reply(503, value).retry_after() == seconds


def test_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    found = _reply(503, date).retry_after()
    assert found is not None
    assert 90 < found <= 100
