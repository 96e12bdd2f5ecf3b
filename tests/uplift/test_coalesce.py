"""Calls that share a run, and get each its own result."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift.coalesce import Coalescer

Run = Callable[[list[int]], Awaitable[list[str]]]


class RefusedError(Exception):
    """What a run raises here."""


def recording(groups: list[list[int]], *, bad: frozenset[int] = frozenset()) -> Run:
    """A run that notes its groups, and fails for those with a bad item."""

    async def run(items: list[int]) -> list[str]:
        groups.append(items)
        await asyncio.sleep(0)
        wrong = sorted(bad & set(items))
        if wrong:
            raise RefusedError(wrong[0])
        return [f"<{item}>" for item in items]

    return run


async def test_each_caller_gets_the_result_of_its_own_item() -> None:
    commit = Coalescer(recording([]))
    assert await asyncio.gather(*(commit(item) for item in range(250))) == [
        f"<{item}>" for item in range(250)
    ]


async def test_a_single_call_runs_at_once_and_alone() -> None:
    groups: list[list[int]] = []
    assert await Coalescer(recording(groups))(7) == "<7>"
    assert groups == [[7]]


async def test_calls_that_come_during_a_run_form_the_next_group() -> None:
    groups: list[list[int]] = []
    started, go_on = asyncio.Event(), asyncio.Event()

    async def run(items: list[int]) -> list[str]:
        groups.append(items)
        started.set()
        await go_on.wait()
        return [""] * len(items)

    commit = Coalescer(run)
    first = asyncio.create_task(commit(0))
    await started.wait()
    others = [asyncio.create_task(commit(item)) for item in (1, 2, 3)]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(first, *others)
    assert groups == [[0], [1, 2, 3]]


async def test_a_group_is_no_larger_than_its_limit() -> None:
    groups: list[list[int]] = []
    commit = Coalescer(recording(groups), limit=4)
    await asyncio.gather(*(commit(item) for item in range(10)))
    assert [item for group in groups for item in group] == list(range(10))
    assert max(map(len, groups)) == 4


async def test_when_a_group_fails_only_the_items_at_fault_fail() -> None:
    groups: list[list[int]] = []
    commit = Coalescer(recording(groups, bad=frozenset({2})))
    results = await asyncio.gather(*(commit(item) for item in range(5)), return_exceptions=True)
    assert [str(result) for result in results] == ["<0>", "<1>", "2", "<3>", "<4>"]
    assert isinstance(results[2], RefusedError)
    assert groups == [[0, 1, 2, 3, 4], [0], [1], [2], [3], [4]]


async def test_a_single_item_that_fails_is_not_run_again() -> None:
    groups: list[list[int]] = []
    with pytest.raises(RefusedError):
        await Coalescer(recording(groups, bad=frozenset({1})))(1)
    assert groups == [[1]]


async def test_each_caller_gets_its_own_error_and_not_a_neighbours() -> None:
    commit = Coalescer(recording([], bad=frozenset({0, 1})))
    results = await asyncio.gather(commit(0), commit(1), return_exceptions=True)
    assert [str(result) for result in results] == ["0", "1"]


async def test_after_a_failure_the_next_call_runs() -> None:
    commit = Coalescer(recording([], bad=frozenset({1})))
    with pytest.raises(RefusedError):
        await commit(1)
    assert await commit(2) == "<2>"


async def test_a_caller_that_is_cancelled_takes_neither_its_item_nor_the_others_with_it() -> None:
    groups: list[list[int]] = []
    commit = Coalescer(recording(groups))
    calls = [asyncio.create_task(commit(item)) for item in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert (results[0], results[2]) == ("<0>", "<2>")
    assert isinstance(results[1], asyncio.CancelledError)
    assert groups == [[0, 1, 2]]
    assert await commit(3) == "<3>"


async def test_a_cancelled_callers_error_is_nobodys() -> None:
    commit = Coalescer(recording([], bad=frozenset({0})))
    call = asyncio.create_task(commit(0))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await commit(1) == "<1>"


async def test_when_the_runs_are_cancelled_nobody_waits_for_ever() -> None:
    started = asyncio.Event()

    async def run(items: list[int]) -> list[str]:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    commit = Coalescer(run, limit=1)
    calls = [asyncio.create_task(commit(item)) for item in range(2)]
    await started.wait()
    runner = next(task for task in asyncio.all_tasks() if "_run_groups" in repr(task))
    runner.cancel()
    async with asyncio.timeout(2):
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)


@given(
    count=st.integers(1, 30),
    limit=st.integers(1, 8),
    bad=st.frozensets(st.integers(0, 30)),
)
async def test_whatever_fails_every_caller_is_told_the_truth_about_its_own_item(
    count: int, limit: int, bad: frozenset[int]
) -> None:
    groups: list[list[int]] = []
    commit = Coalescer(recording(groups, bad=bad), limit=limit)
    results = await asyncio.gather(*(commit(item) for item in range(count)), return_exceptions=True)
    for item, result in enumerate(results):
        if item in bad:
            assert isinstance(result, RefusedError)
            assert result.args == (item,)
        else:
            assert result == f"<{item}>"


async def test_a_failure_that_concerns_all_is_given_to_all_at_once() -> None:
    runs: list[int] = []

    async def fail(items: list[int]) -> list[int]:
        runs.append(len(items))
        raise ConnectionError

    together: Coalescer[int, int] = Coalescer(
        fail, concerns_all=lambda error: isinstance(error, ConnectionError)
    )
    results = await asyncio.gather(*(together(n) for n in range(10)), return_exceptions=True)
    assert all(isinstance(result, ConnectionError) for result in results)
    assert sum(runs) == 10


async def test_behind_one_slow_item_the_others_are_done_and_only_it_fails() -> None:
    commit = Coalescer(recording([], bad=frozenset({3})), is_slow=lambda _: True)
    done = await asyncio.gather(*(commit(item) for item in range(20)), return_exceptions=True)
    assert isinstance(done.pop(3), RefusedError)
    assert done == [f"<{item}>" for item in range(20) if item != 3]


async def test_where_everything_is_slow_a_group_fails_after_a_few_items() -> None:
    groups: list[list[int]] = []
    commit = Coalescer(recording(groups, bad=frozenset(range(100))), is_slow=lambda _: True)
    done = await asyncio.gather(*(commit(item) for item in range(100)), return_exceptions=True)
    assert all(isinstance(each, RefusedError) for each in done)
    assert groups == [list(range(100)), [0], [1], [2], [3]]


async def test_where_the_group_before_was_slow_too_a_slow_group_fails_at_once() -> None:
    groups: list[list[int]] = []
    commit = Coalescer(recording(groups, bad=frozenset(range(50))), is_slow=lambda _: True)
    with pytest.raises(RefusedError):
        await commit(0)
    await asyncio.gather(*(commit(item) for item in range(20)), return_exceptions=True)
    assert len(groups) == 2
    assert await commit(50) == "<50>"
    await asyncio.gather(*(commit(item) for item in range(49, 55)), return_exceptions=True)
    assert [52] in groups


async def test_a_failure_that_concerns_all_ends_the_runs_of_items_alone() -> None:
    groups: list[list[int]] = []

    async def fail(items: list[int]) -> list[str]:
        groups.append(items)
        raise ConnectionError if len(groups) > 1 else RefusedError

    commit = Coalescer(fail, concerns_all=lambda error: isinstance(error, ConnectionError))
    done = await asyncio.gather(*(commit(item) for item in range(20)), return_exceptions=True)
    assert all(isinstance(each, ConnectionError) for each in done)
    assert len(groups) == 2
