"""The in-flight limit."""

import asyncio

import pytest

from uplift.delivery.in_flight import InFlightLimit


async def filled(in_flight: InFlightLimit, *sizes: int) -> int:
    """Acquire a slot for each of these bodies, and use the bytes of those that fit. How many."""
    taken = await asyncio.wait_for(in_flight.acquire(len(sizes)), 1)
    assert taken == len(sizes)
    fitting = in_flight.fit(sizes)
    if fitting < taken:
        await in_flight.release(taken - fitting)
    return fitting


async def waits(acquiring: "asyncio.Task[int]") -> bool:
    """Whether it still waits for free slots."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not acquiring.done()


async def test_no_more_slots_are_acquired_than_there_are() -> None:
    in_flight = InFlightLimit(slots=3, body_bytes=1000)
    assert await in_flight.acquire(2) == 2
    assert await in_flight.acquire(2) == 1
    assert in_flight.in_flight == 3


async def test_bodies_fit_in_their_order_up_to_the_byte_limit() -> None:
    in_flight = InFlightLimit(slots=10, body_bytes=100)
    assert await filled(in_flight, 60, 40, 1) == 2
    assert in_flight.in_flight == 2


async def test_bodies_behind_one_that_does_not_fit_wait() -> None:
    in_flight = InFlightLimit(slots=10, body_bytes=100)
    assert await filled(in_flight, 60, 50, 1) == 1


@pytest.mark.parametrize("behind", [[], [1], [500]])
async def test_a_body_larger_than_the_limit_fits_alone(behind: list[int]) -> None:
    in_flight = InFlightLimit(slots=10, body_bytes=100)
    assert await filled(in_flight, 500, *behind) == 1


@pytest.mark.parametrize(
    ("slots", "body_bytes", "taken"), [(1, 1000, [1]), (10, 100, [60, 40]), (10, 100, [500])]
)
async def test_acquire_waits_until_a_slot_is_released(
    slots: int, body_bytes: int, taken: list[int]
) -> None:
    in_flight = InFlightLimit(slots=slots, body_bytes=body_bytes)
    assert await filled(in_flight, *taken) == len(taken)
    waiting = asyncio.create_task(in_flight.acquire(1))
    assert await waits(waiting)
    await in_flight.release(1, taken[0])
    assert await asyncio.wait_for(waiting, 1) == 1


@pytest.mark.parametrize(("limit", "freed"), [(100, 4), (4, 4), (3, 3), (1, 1)])
async def test_acquire_waits_for_a_few_slots_unless_fewer_are_wanted(
    limit: int, freed: int
) -> None:
    in_flight = InFlightLimit(slots=64, body_bytes=1000)
    assert await in_flight.acquire(64) == 64
    waiting = asyncio.create_task(in_flight.acquire(limit))
    for _ in range(freed):
        assert await waits(waiting)
        await in_flight.release(1)
    assert await asyncio.wait_for(waiting, 1) == freed


async def test_after_a_body_did_not_fit_acquire_waits_until_some_bytes_are_released() -> None:
    # Some bytes are free, but not enough: without a wait the caller would spin.
    in_flight = InFlightLimit(slots=10, body_bytes=100)
    assert await filled(in_flight, 60, 50) == 1
    waiting = asyncio.create_task(in_flight.acquire(1))
    assert await waits(waiting)
    await in_flight.release(1, 60)
    assert await asyncio.wait_for(waiting, 1) == 1
    assert in_flight.fit([50]) == 1


async def test_released_slots_and_bytes_can_be_used_again_to_the_last_byte() -> None:
    in_flight = InFlightLimit(slots=2, body_bytes=100)
    for _ in range(3):
        assert await filled(in_flight, 70, 30) == 2
        await in_flight.release(1, 70)
        await in_flight.release(1, 30)
    assert in_flight.in_flight == 0


async def test_all_that_wait_get_slots() -> None:
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


async def test_alone_waits_for_what_is_in_flight_and_makes_all_others_wait() -> None:
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


async def test_a_cancelled_alone_makes_nobody_wait() -> None:
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


async def test_a_bundle_waits_for_its_slots_but_never_for_more_than_half() -> None:
    in_flight = InFlightLimit(slots=32, body_bytes=1000)
    assert await in_flight.acquire(26, together=20) == 26
    waiting = asyncio.create_task(in_flight.acquire(20, together=20))
    await in_flight.release(9)
    assert await waits(waiting), "15 are free"
    await in_flight.release(1)
    assert await waiting == 16
    # What is due alone waits for nobody.
    await in_flight.release(1)
    assert await in_flight.acquire(1, together=20) == 1


async def test_a_bundle_waits_for_half_of_what_its_destination_may_have() -> None:
    in_flight = InFlightLimit(slots=32, body_bytes=1000, destinations=2)
    in_flight.note_work("other")
    assert await in_flight.acquire(8, "mine", together=20) == 8
    assert await asyncio.wait_for(in_flight.acquire(20, "mine", together=20), 1) == 8
