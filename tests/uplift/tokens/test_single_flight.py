"""What one caller's failure means for the others who want the same user's token."""

from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from uplift.errors import TokenLimitReached, TokenPending, TokenUnavailable
from uplift.tokens.single_flight import SingleFlight

VERSION = 7
ALICE = uuid4()


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def flights(clock: Clock) -> SingleFlight:
    """The flights of a process, by that clock."""
    return SingleFlight(now=clock)


def limit() -> TokenLimitReached:
    return TokenLimitReached("quota_spent", retry_after=60.0, spread=5.0)


def fails(error: TokenUnavailable) -> Callable[[], Awaitable[str]]:
    """A refresh that fails so."""

    async def refresh() -> str:
        raise error

    return refresh


async def succeeds() -> str:
    """A refresh that gives a token."""
    return "token"


async def outcome(
    flights: SingleFlight, *, since: float, version: int = VERSION, user_id: UUID = ALICE
) -> TokenUnavailable | str:
    """What a caller gets who waits since that time: a token, unless an earlier failure counts."""
    try:
        return await flights.run(flights.of(user_id), version, since, succeeds)
    except TokenUnavailable as error:
        return error


async def fail(flights: SingleFlight, error: TokenUnavailable, user_id: UUID = ALICE) -> None:
    """Let a refresh of the user's token fail so."""
    with pytest.raises(type(error)):
        await flights.run(flights.of(user_id), VERSION, 0.0, fails(error))
    error.__traceback__ = None  # it would keep the flight in memory


@pytest.mark.parametrize(
    "error",
    [
        TokenUnavailable("http_503", retry_after=9.0),
        TokenPending("another_is_refreshing", retry_after=1.0),
    ],
)
async def test_a_failure_counts_for_those_who_waited_and_for_none_who_come_later(
    flights: SingleFlight, clock: Clock, error: TokenUnavailable
) -> None:
    flight = flights.of(ALICE)
    await fail(flights, error)

    found = await outcome(flights, since=clock.now)

    assert found is not error
    assert type(found) is type(error)
    assert isinstance(found, TokenUnavailable)
    assert (found.code, found.retry_after) == (error.code, error.retry_after)
    assert await outcome(flights, since=clock.now + 1) == "token"
    assert flights.of(ALICE) is flight


async def test_a_reached_limit_counts_for_those_who_come_later_too_until_it_has_passed(
    flights: SingleFlight, clock: Clock
) -> None:
    await fail(flights, limit())
    clock.now += 20

    found = await outcome(flights, since=clock.now)

    assert isinstance(found, TokenLimitReached)
    assert (found.code, found.retry_after, found.spread) == ("quota_spent", 40.0, 5.0)
    clock.now += 40
    assert await outcome(flights, since=clock.now) == "token"


async def test_a_newer_version_of_the_grant_is_always_tried(flights: SingleFlight) -> None:
    await fail(flights, limit())
    assert await outcome(flights, since=0.0, version=VERSION + 1) == "token"


async def test_a_success_ends_the_limit(flights: SingleFlight, clock: Clock) -> None:
    await fail(flights, limit())
    await outcome(flights, since=clock.now, version=VERSION + 1)
    assert await outcome(flights, since=clock.now) == "token"


def test_callers_who_want_the_same_users_token_share_a_flight(flights: SingleFlight) -> None:
    first, second = flights.of(ALICE), flights.of(ALICE)
    assert first is second
    assert flights.of(uuid4()) is not first


async def test_only_so_many_limits_are_remembered(clock: Clock) -> None:
    flights = SingleFlight(max_remembered=2, now=clock)
    users = [uuid4() for _ in range(3)]
    for user_id in users:
        await fail(flights, limit(), user_id)

    found = [await outcome(flights, since=clock.now + 1, user_id=each) for each in users]

    assert [each == "token" for each in found] == [True, False, False]
