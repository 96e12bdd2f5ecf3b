"""A remembered check: one in flight, its outcome for a second, also if it is a problem."""

import asyncio

import pytest

from uplift.api.problems import Problem
from uplift.api.remembered import Remembered
from uplift.problem_types import ProblemType

LATE = Problem(ProblemType.DATABASE_UNAVAILABLE, "No answer in time.")


async def test_who_asks_meanwhile_and_within_a_second_gets_the_same_outcome() -> None:
    runs, clock = 0, 0.0

    async def check() -> int:
        nonlocal runs
        await asyncio.sleep(0)
        runs += 1
        return runs

    remembered = Remembered(check, late=LATE, now=lambda: clock)
    assert await asyncio.gather(*(remembered() for _ in range(100))) == [1] * 100
    clock = 0.9
    assert await remembered() == 1
    clock = 1.0
    assert await remembered() == 2


async def test_a_failure_is_remembered_as_the_problem_that_it_is() -> None:
    runs = 0

    async def check() -> int:
        nonlocal runs
        runs += 1
        raise Problem(ProblemType.BUSY, "Not now.")

    remembered = Remembered(check, late=LATE, now=lambda: 0.0)
    for _ in range(3):
        with pytest.raises(Problem) as refused:
            await remembered()
        assert (refused.value.kind, refused.value.detail) == (ProblemType.BUSY, "Not now.")
    assert runs == 1


async def test_a_check_that_hangs_is_late_until_it_ends() -> None:
    ends = asyncio.Event()

    async def check() -> int:
        await ends.wait()
        return 1

    remembered = Remembered(check, patience=0.01, late=LATE)
    for _ in range(2):
        with pytest.raises(Problem, match=LATE.kind.title):
            await remembered()
    ends.set()
    assert await remembered() == 1
