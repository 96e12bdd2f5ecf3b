"""The turnstile: few requests of one credential begin in one pass of the event loop."""

import asyncio

from uplift.api.turnstile import Turnstile


async def test_a_single_request_begins_before_most_of_a_crowd() -> None:
    turnstile = Turnstile()
    order: list[bytes] = []

    async def request(key: bytes) -> None:
        await turnstile.enter(key)
        order.append(key)

    await asyncio.gather(*(request(b"crowd") for _ in range(100)), request(b"one"))
    assert len(order) == 101
    assert order.index(b"one") <= 4


async def test_a_cancelled_request_takes_nobodys_place() -> None:
    turnstile = Turnstile()
    tasks = [asyncio.create_task(turnstile.enter(b"key")) for _ in range(6)]
    await asyncio.sleep(0)
    for task in tasks[2:5]:
        task.cancel()
    async with asyncio.timeout(5):
        await tasks[5]
        await asyncio.gather(*tasks, return_exceptions=True)
        await turnstile.enter(b"key")


async def test_a_credential_that_is_alone_passes_freely_until_another_comes() -> None:
    turnstile = Turnstile()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await turnstile.enter(b"crowd")
    while loop.time() < started + 1.1:
        await turnstile.enter(b"")  # a health check
        await asyncio.sleep(0.1)

    async def begin_all(key: bytes) -> list[bool]:
        tasks = [asyncio.create_task(turnstile.enter(key)) for _ in range(10)]
        await asyncio.sleep(0)
        done = [task.done() for task in tasks]
        await asyncio.gather(*tasks)
        return done

    assert all(await begin_all(b"crowd"))
    assert not all(await begin_all(b""))
    await turnstile.enter(b"one")
    assert not all(await begin_all(b"crowd"))


async def test_a_large_body_is_received_at_full_speed_until_another_credential_comes() -> None:
    turnstile = Turnstile()
    loop = asyncio.get_running_loop()

    async def seconds_of(mebibytes: int) -> float:
        started = loop.time()
        for _ in range(mebibytes):
            await turnstile.receive(b"large", 1024 * 1024)
        return loop.time() - started

    assert await seconds_of(10_000) < 0.3
    await turnstile.enter(b"large")
    await turnstile.enter(b"one")
    assert await seconds_of(10) >= 0.3


async def test_all_large_bodies_of_a_credential_share_its_rate() -> None:
    turnstile = Turnstile()
    loop = asyncio.get_running_loop()
    await turnstile.enter(b"one")
    started = loop.time()
    await asyncio.gather(*(turnstile.receive(b"large", 1024 * 1024) for _ in range(10)))
    assert loop.time() - started >= 0.3
    await turnstile.receive(b"other", 1024)
    assert loop.time() - started < 0.6
