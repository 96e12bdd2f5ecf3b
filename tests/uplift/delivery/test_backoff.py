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


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 0), (0.5, 16), (1.0, 32)])
def test_the_delay_is_anywhere_between_nothing_and_the_ceiling(jitter: float, delay: float) -> None:
    assert Backoff(first=8, limit=100).delay(3, jitter) == delay


@given(attempts=st.integers(0, 10**6), jitter=st.floats(0, 1), floor=st.floats(0, 10**6))
def test_no_delay_is_below_its_floor_or_above_both_floor_and_ceiling(
    attempts: int, jitter: float, floor: float
) -> None:
    backoff = Backoff()
    delay = backoff.delay(attempts, jitter, floor=floor)
    assert floor <= delay <= max(floor, backoff.ceiling(attempts))
