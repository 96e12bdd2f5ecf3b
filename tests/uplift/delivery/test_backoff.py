"""Delays between attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift.delivery.backoff import Backoff


@pytest.mark.parametrize(
    ("attempts", "ceiling"),
    [(1, 5), (2, 10), (3, 20), (4, 40), (10, 2560), (11, 3600), (12, 3600), (10_000, 3600)],
)
def test_the_ceiling_doubles_from_five_seconds_to_an_hour(attempts: int, ceiling: float) -> None:
    assert Backoff().ceiling(attempts) == ceiling


@pytest.mark.parametrize("attempts", [0, -1])
def test_no_attempts_yet_count_as_the_first(attempts: int) -> None:
    assert Backoff().ceiling(attempts) == 5


def test_the_delay_is_anywhere_between_nothing_and_the_ceiling() -> None:
    asked: list[tuple[float, float]] = []

    def middle(low: float, high: float) -> float:
        asked.append((low, high))
        return (low + high) / 2

    assert Backoff(first=8, limit=100, uniform=middle).delay(3) == 16
    assert asked == [(0, 32)]


@given(attempts=st.integers(0, 10**6), floor=st.floats(0, 10**6))
def test_no_delay_is_below_its_floor_or_above_both_floor_and_ceiling(
    attempts: int, floor: float
) -> None:
    backoff = Backoff()
    assert floor <= backoff.delay(attempts, floor=floor) <= max(floor, backoff.ceiling(attempts))


def test_a_crowd_that_failed_together_does_not_come_back_together() -> None:
    assert len({Backoff().delay(5) for _ in range(20)}) > 1
