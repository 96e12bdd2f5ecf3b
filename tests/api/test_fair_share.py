"""Fair shares: one credential alone gets everything, and yields to others within a second."""

import asyncio
from uuid import UUID

import pytest

from uplift.api.admission import Admission
from uplift.api.fair_share import FairShare, Part, Receiving, in_line, who_yields
from uplift.api.problems import Problem
from uplift.ledger.credentials import BACKEND, CredentialRow
from uplift.problem_types import ProblemType
from uplift.settings import Settings

A, B, C = (UUID(int=number) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("heads", "used", "order"),
    [
        ({A: 1, B: 2}, {}, [A, B]),
        ({A: 1, B: 2}, {A: 1}, [B, A]),
        ({A: 3, B: 2, C: 1}, {A: 1, B: 1, C: 1}, [C, B, A]),
        ({A: 1, B: 2, C: 3}, {A: 9, B: 5}, [C, B, A]),
    ],
)
def test_who_uses_least_is_next_and_among_equals_who_came_first(
    heads: dict[UUID, int], used: dict[UUID, int], order: list[UUID]
) -> None:
    assert in_line(heads, used) == order


@pytest.mark.parametrize(
    ("asks", "size", "used", "yields"),
    [
        (B, 1, {}, None),
        (B, 1, {A: 16}, A),
        (A, 1, {A: 16}, None),  # nobody yields to itself
        (B, 1, {A: 8, B: 8}, None),  # both have their share
        (B, 1, {A: 9, B: 7}, A),
        (C, 1, {A: 10, B: 6}, A),
        (C, 1, {A: 1, B: 1}, None),
        (C, 16, {A: 15, B: 1}, None),  # nobody yields more than the other one would leave
    ],
)
def test_who_uses_more_than_a_fair_share_yields(
    asks: UUID, size: int, used: dict[UUID, int], yields: UUID | None
) -> None:
    assert who_yields(asks, size, used, 16) == yields


def share(limit: int, wait_seconds: float = 5, **more: float) -> FairShare:
    return FairShare(
        "body",
        limit,
        wait_seconds=wait_seconds,
        refusal="Nothing was accepted.",
        small=int(more.pop("small", 0)),
        reserve=bool(more.pop("reserve", 0)),
        **more,
    )


async def until_it_waits(task: "asyncio.Task[object]") -> None:
    """Let a task run until it can only wait. A few passes of the loop are enough for that."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()


async def waiting(part: Part) -> "asyncio.Task[Part]":
    task = asyncio.create_task(part.__aenter__())
    await until_it_waits(task)
    return task


async def test_one_credential_alone_gets_all() -> None:
    whole = share(10)
    async with whole.part(A, 4), whole.part(A, 6):
        task = await waiting(whole.part(A, 1))
    await task


async def test_a_device_gets_its_part_at_most_and_its_only_request_may_be_larger() -> None:
    whole = share(16, 0.02)
    async with whole.part(A, 1, most=2), whole.part(A, 1, most=2):
        with pytest.raises(Problem):
            await whole.part(A, 1, most=2).__aenter__()
        async with whole.part(B, 14):  # the rest is free for others
            pass
    async with whole.part(A, 9, most=2):
        pass


async def test_the_credential_that_uses_less_is_let_in_first() -> None:
    whole = share(2)
    first = whole.part(A, 1)
    await first.__aenter__()
    async with whole.part(A, 1):
        mine = [await waiting(whole.part(A, 1)) for _ in range(3)]
        other = await waiting(whole.part(B, 1))
        first.release()
        await other
        assert not any(task.done() for task in mine)
    for task in mine:
        (await task).release()


async def test_a_request_that_waits_too_long_hears_when_to_come_back() -> None:
    whole = share(10, 0.02)
    async with whole.part(A, 8):
        with pytest.raises(Problem) as refused:
            await whole.part(A, 3).__aenter__()
        assert refused.value.kind is ProblemType.BUSY
        assert int(refused.value.headers["Retry-After"]) > 0
    async with whole.part(A, 10):  # the refused request uses nothing
        pass


async def test_small_requests_do_not_overtake_a_large_one_that_waits() -> None:
    whole = share(10)
    async with whole.part(A, 6):
        large = await waiting(whole.part(B, 9))
        small = await waiting(whole.part(C, 1))
    (await large).release()
    await small


async def test_a_request_for_more_than_the_capacity_gets_all_of_it_alone() -> None:
    whole = share(10, 0.02)
    async with whole.part(A, 1000):
        with pytest.raises(Problem):
            await whole.part(B, 1).__aenter__()
    async with whole.part(B, 10):
        pass


async def test_failed_and_cancelled_requests_give_their_capacity_back() -> None:
    whole = share(1)
    with pytest.raises(ZeroDivisionError):
        async with whole.part(A, 1):
            raise ZeroDivisionError
    async with whole.part(A, 1):
        tasks = [await waiting(whole.part(B, 1)) for _ in range(3)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    async with whole.part(A, 1):
        # Granted and cancelled in the same moment.
        task = await waiting(whole.part(B, 1))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with whole.part(A, 1):
        pass


async def test_requests_that_grow_never_all_wait_for_each_other() -> None:
    whole = share(10, reserve=True)

    async def receive() -> None:
        async with whole.part(A, 0) as part:
            for _ in range(8):
                await part.grow(1)
                await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(*(receive() for _ in range(20)))


async def test_a_key_with_slow_requests_yields_to_another_key_within_a_second() -> None:
    whole = share(3)
    ended = []

    async def receive(number: int) -> None:
        receiving = Receiving()
        async with whole.part(A, 1, receiving=receiving):
            try:
                async with receiving.within(None):
                    await asyncio.sleep(60)
            except TimeoutError:
                assert receiving.interrupted
                ended.append(number)

    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(receive(number)))
        await until_it_waits(tasks[-1])
    # Its own next request waits; nobody is interrupted for it.
    own = await waiting(whole.part(A, 1))
    async with asyncio.timeout(1), whole.part(B, 1):
        assert ended == [0]  # the one that has waited longest
    for task in (own, *tasks):
        task.cancel()
    await asyncio.gather(own, *tasks, return_exceptions=True)


async def test_what_was_interrupted_and_still_answers_is_not_followed_by_another() -> None:
    whole = share(2)
    answers = asyncio.Event()
    interrupted = []

    async def receive(number: int) -> None:
        receiving = Receiving()
        async with whole.part(A, 1, receiving=receiving):
            try:
                async with receiving.within(None):
                    await asyncio.sleep(60)
            except TimeoutError:
                interrupted.append(number)
                await answers.wait()

    tasks = [asyncio.create_task(receive(number)) for number in range(2)]
    for task in tasks:
        await until_it_waits(task)
    other = await waiting(whole.part(B, 1))
    await asyncio.sleep(1)
    assert len(interrupted) == 1
    answers.set()
    for each in (other, *tasks):
        each.cancel()
    await asyncio.gather(other, *tasks, return_exceptions=True)


async def test_a_key_leaves_work_for_others_and_slow_large_bodies_do_not_delay_small_ones() -> None:
    admission = Admission(Settings(max_intake_bytes=1024 * 1024, admission_wait_seconds=0.02))
    key, other = (CredentialRow(who, "key", BACKEND, None, None) for who in (A, B))
    for _ in range(56):
        await admission.request(key).grow(1)
    with pytest.raises(Problem):
        await admission.request(key).grow(1)
    for _ in range(8):
        await admission.request(other).grow(1)
    async with admission.body(key, Receiving()) as large:
        await large.grow(768 * 1024)
        for _ in range(100):
            async with admission.body(key, Receiving()) as small:
                await small.grow(1000)


async def test_a_wait_whose_time_is_just_over_is_not_interrupted() -> None:
    receiving = Receiving()
    seen: list[bool] = []

    async def wait() -> None:
        async with receiving.within(0.01):
            assert receiving._timeout is not None
            # In the pass in which the time is over, before the wait itself has ended.
            asyncio.get_running_loop().call_at(
                receiving._timeout.when() or 0, lambda: seen.append(receiving.can_be_interrupted)
            )
            await asyncio.sleep(1)

    with pytest.raises(TimeoutError):
        await wait()
    assert seen == [False]
