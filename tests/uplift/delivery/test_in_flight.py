"""How much may be in flight."""

import asyncio

import pytest

from uplift.delivery.in_flight import InFlightLimit


async def filled(in_flight: InFlightLimit, *sizes: int) -> int:
    """Take a slot for each of these bodies, and bytes for those that fit; how many did."""
    taken = await asyncio.wait_for(in_flight.acquire(len(sizes)), 1)
    assert taken == len(sizes)
    fitting = in_flight.fit(sizes)
    if fitting < taken:
        await in_flight.release(taken - fitting)
    return fitting


async def waits(taking: "asyncio.Task[int]") -> bool:
    """Whether it still waits for room."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not taking.done()


async def test_as_many_are_taken_as_there_are_slots() -> None:
    in_flight = InFlightLimit(slots=3, body_bytes=1000)
    assert await in_flight.acquire(2) == 2
    assert await in_flight.acquire(2) == 1
    assert in_flight.in_flight == 3


async def test_as_many_bodies_are_taken_in_their_order_as_fit_in_the_bytes() -> None:
    in_flight = InFlightLimit(slots=10, body_bytes=100)
    assert await filled(in_flight, 60, 40, 1) == 2
    assert in_flight.in_flight == 2


async def test_a_body_that_does_not_fit_holds_back_those_behind_it() -> None:
    in_flight = InFlightLimit(slots=10, body_bytes=100)
    assert await filled(in_flight, 60, 50, 1) == 1


@pytest.mark.parametrize("behind", [[], [1], [500]])
async def test_a_body_larger_than_all_the_room_goes_alone(behind: list[int]) -> None:
    in_flight = InFlightLimit(slots=10, body_bytes=100)
    assert await filled(in_flight, 500, *behind) == 1


@pytest.mark.parametrize(
    ("slots", "body_bytes", "taken"), [(1, 1000, [1]), (10, 100, [60, 40]), (10, 100, [500])]
)
async def test_room_is_waited_for_until_a_place_is_given_back(
    slots: int, body_bytes: int, taken: list[int]
) -> None:
    in_flight = InFlightLimit(slots=slots, body_bytes=body_bytes)
    assert await filled(in_flight, *taken) == len(taken)
    waiting = asyncio.create_task(in_flight.acquire(1))
    assert await waits(waiting)
    await in_flight.release(1, taken[0])
    assert await asyncio.wait_for(waiting, 1) == 1


@pytest.mark.parametrize(("limit", "freed"), [(100, 4), (4, 4), (3, 3), (1, 1)])
async def test_a_few_slots_are_waited_for_unless_fewer_are_wanted(limit: int, freed: int) -> None:
    in_flight = InFlightLimit(slots=64, body_bytes=1000)
    assert await in_flight.acquire(64) == 64
    waiting = asyncio.create_task(in_flight.acquire(limit))
    for _ in range(freed):
        assert await waits(waiting)
        await in_flight.release(1)
    assert await asyncio.wait_for(waiting, 1) == freed


async def test_after_a_body_found_no_room_asking_again_waits_until_some_was_freed() -> None:
    # There are bytes left, only not enough of them: without a wait, who asks would spin.
    in_flight = InFlightLimit(slots=10, body_bytes=100)
    assert await filled(in_flight, 60, 50) == 1
    waiting = asyncio.create_task(in_flight.acquire(1))
    assert await waits(waiting)
    await in_flight.release(1, 60)
    assert await asyncio.wait_for(waiting, 1) == 1
    assert in_flight.fit([50]) == 1


async def test_what_is_given_back_can_be_taken_again_to_the_last_byte() -> None:
    in_flight = InFlightLimit(slots=2, body_bytes=100)
    for _ in range(3):
        assert await filled(in_flight, 70, 30) == 2
        await in_flight.release(1, 70)
        await in_flight.release(1, 30)
    assert in_flight.in_flight == 0


async def test_many_that_wait_all_get_their_turn() -> None:
    in_flight = InFlightLimit(slots=32, body_bytes=90)
    limit = 0

    async def use() -> None:
        nonlocal limit
        fitting = 0
        while not fitting:
            taken = await in_flight.acquire(2)
            fitting = in_flight.fit([40, 40][:taken])
            await in_flight.release(taken - fitting)
        limit = max(limit, fitting)
        await asyncio.sleep(0)
        await in_flight.release(fitting, 40 * fitting)

    async with asyncio.timeout(5):
        await asyncio.gather(*(use() for _ in range(50)))
    assert limit == 2
    assert in_flight.in_flight == 0


async def test_one_that_goes_alone_waits_for_what_is_in_flight_and_keeps_all_others_out() -> None:
    in_flight = InFlightLimit(slots=5, body_bytes=100)
    assert await in_flight.acquire(2) == 2
    told: list[str] = []

    async def alone(name: str) -> None:
        async with in_flight.alone():
            told.append(name)
            assert in_flight.in_flight == 0
            await asyncio.sleep(0.01)
            assert in_flight.in_flight == 0

    both = asyncio.gather(alone("one"), alone("two"))
    await asyncio.sleep(0.01)
    other = asyncio.create_task(in_flight.acquire(1))
    await in_flight.release(1)
    await asyncio.sleep(0.01)
    assert not told
    assert not other.done()
    await in_flight.release(1)
    await both
    assert told == ["one", "two"]
    assert await asyncio.wait_for(other, 1) == 1


async def test_one_that_no_longer_waits_to_go_alone_keeps_nobody_out() -> None:
    in_flight = InFlightLimit(slots=2, body_bytes=100)
    assert await in_flight.acquire(1) == 1

    async def alone() -> None:
        async with in_flight.alone():
            raise AssertionError("something was in flight")

    waiting = asyncio.create_task(alone())
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await asyncio.wait_for(in_flight.acquire(1), 1) == 1
