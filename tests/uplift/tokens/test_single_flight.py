"""What one caller's failure says to the others who want the same user's token."""

import time
from uuid import UUID, uuid4

import pytest

from uplift.tokens.single_flight import (
    Flight,
    SingleFlight,
    TokenLimitReached,
    TokenPending,
    TokenUnavailable,
)

VERSION = 7


def outcome(turn: Flight, version: int = VERSION, *, came_at: float) -> TokenUnavailable | None:
    """What a caller is answered at once, who came at that time; None: they may ask."""
    try:
        turn.check(version, came_at)
    except TokenUnavailable as error:
        return error
    return None


def failed(error: TokenUnavailable) -> Flight:
    turn = Flight()
    turn.failed(VERSION, error)
    return turn


@pytest.mark.parametrize(
    "error",
    [
        TokenUnavailable("http_503", retry_after=9.0),
        TokenPending("another_is_refreshing", retry_after=1.0),
    ],
)
def test_a_failure_answers_those_who_were_there_and_none_who_come_later(
    error: TokenUnavailable,
) -> None:
    before = time.monotonic()
    turn = failed(error)

    found = outcome(turn, came_at=before)

    assert found is not error
    assert type(found) is type(error)
    assert found is not None
    assert (found.code, found.retry_after) == (error.code, error.retry_after)
    assert outcome(turn, came_at=time.monotonic() + 1) is None


def test_a_reached_limit_answers_those_who_come_later_too_with_what_is_left_of_it() -> None:
    turn = failed(TokenLimitReached("quota_spent", retry_after=60.0, spread=5.0))

    found = outcome(turn, came_at=time.monotonic() + 1)

    assert isinstance(found, TokenLimitReached)
    assert (found.code, found.spread) == ("quota_spent", 5.0)
    assert 30 < (found.retry_after or 0) <= 60


def test_a_limit_that_has_passed_answers_nobody_who_comes_later() -> None:
    turn = failed(TokenLimitReached("quota_spent", retry_after=0.0))
    assert outcome(turn, came_at=time.monotonic() + 1) is None


def test_a_newer_version_of_the_grant_is_tried_whatever_the_older_met() -> None:
    turn = failed(TokenLimitReached("quota_spent", retry_after=60.0))
    assert outcome(turn, VERSION + 1, came_at=0.0) is None


def test_who_wants_the_same_users_token_shares_a_turn() -> None:
    turns, alice, bob = SingleFlight(), uuid4(), uuid4()
    first, second = turns.of(alice), turns.of(alice)
    assert first is second
    assert turns.of(bob) is not first


def test_a_turn_lasts_while_it_is_remembered() -> None:
    turns, alice = SingleFlight(), uuid4()
    turn = turns.of(alice)
    turn.failed(VERSION, TokenLimitReached("quota_spent", retry_after=60.0))
    turns.remember(alice, turn)
    del turn
    assert outcome(turns.of(alice), came_at=time.monotonic()) is not None

    turns.forget(alice)
    turns.forget(alice)

    assert outcome(turns.of(alice), came_at=time.monotonic()) is None


def test_only_so_many_are_remembered() -> None:
    turns = SingleFlight()
    for number in range(10_001):
        turn = Flight()
        turn.failed(VERSION, TokenLimitReached("quota_spent", retry_after=60.0))
        turns.remember(UUID(int=number), turn)
    assert len(turns._remembered) == 10_000
