"""How much callers may bring: at once, over time, and in debt."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import new_id
from uplift.intake.rate_limit import Policy, Standing, TokenBuckets

_TEN = Policy(amount=10, seconds=5.0)  # two a second
_CALLER = UUID(int=1)


@pytest.mark.parametrize(
    ("steps", "left", "seconds"),
    [
        # (at, records): taken as singles where 1, charged as a batch where more
        ([], 10, 0.0),
        ([(0.0, 1)], 9, 0.5),
        ([(0.0, 1)] * 10, 0, 0.5),
        ([(0.0, 1)] * 10 + [(0.25, 1)], 0, 0.25),  # the last was refused and costs nothing
        ([(0.0, 10), (1.0, 0)], 2, 4.0),
        ([(0.0, 4), (60.0, 0)], 10, 0.0),  # never more than the whole
        ([(0.0, 14)], 0, 2.5),  # four in debt and one to come
        ([(0.0, 1_000_000)], 0, 5.5),  # a debt is never more than the whole
        ([(0.0, 1_000_000), (5.25, 0)], 0, 0.25),
    ],
)
def test_what_is_left_comes_back_steadily(
    steps: Sequence[tuple[float, int]], left: int, seconds: float
) -> None:
    rate_limits = TokenBuckets()
    now = 0.0
    for now, records in steps:
        if records == 1:
            rate_limits.acquire(_CALLER, _TEN, 1, now=now)
        else:
            rate_limits.charge(_CALLER, _TEN, records, now=now)
    found = rate_limits.standing(_CALLER, _TEN, now=now)
    assert found.left == left
    assert found.seconds == pytest.approx(seconds)


def test_the_next_may_come_after_the_standing_s_time_and_not_before() -> None:
    rate_limits = TokenBuckets()
    rate_limits.charge(_CALLER, _TEN, 17, now=0.0)
    seconds = rate_limits.standing(_CALLER, _TEN, now=0.0).seconds
    assert not rate_limits.acquire(_CALLER, _TEN, 1, now=seconds - 0.01)
    assert rate_limits.acquire(_CALLER, _TEN, 1, now=seconds + 0.01)


def test_each_caller_has_a_bucket_of_their_own() -> None:
    rate_limits = TokenBuckets()
    rate_limits.charge(_CALLER, _TEN, 20, now=0.0)
    assert not rate_limits.acquire(_CALLER, _TEN, 1, now=0.0)
    assert rate_limits.acquire(UUID(int=2), _TEN, 1, now=0.0)


def test_only_so_many_callers_are_remembered_and_none_who_still_come() -> None:
    rate_limits = TokenBuckets()
    rate_limits.charge(_CALLER, _TEN, 20, now=0.0)
    for number in range(2, 10_002):
        rate_limits.acquire(UUID(int=number), _TEN, 1, now=0.0)
        if number % 1000 == 0:
            rate_limits.charge(_CALLER, _TEN, 0, now=0.0)
    assert len(rate_limits._buckets) == 10_000
    assert not rate_limits.acquire(_CALLER, _TEN, 1, now=0.0)


@given(st.lists(st.floats(0, 3), max_size=60))
def test_in_no_span_of_time_does_more_come_in_than_the_policy_says(pauses: list[float]) -> None:
    rate_limits = TokenBuckets()
    now, came = 0.0, [0.0][:0]
    for pause in pauses:
        now += pause
        if rate_limits.acquire(_CALLER, _TEN, 1, now=now):
            came.append(now)
    for first in range(len(came)):
        for last in range(first, len(came)):
            span = came[last] - came[first]
            assert last - first + 1 <= _TEN.amount + span * 2 + 1e-6


def test_a_new_caller_has_a_full_bucket() -> None:
    assert TokenBuckets().standing(new_id(), _TEN, now=5.0) == Standing(10, 0.0)
