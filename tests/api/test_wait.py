"""?wait=: a long poll ends when the status is settled or changes, or when its time is up."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import event

from tests import factories
from tests.api.calls import assert_problem, move, submit
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.settings import Settings
from uplift.wiring import Relay


@contextmanager
def _statements(database: Database, containing: str) -> Iterator[list[str]]:
    """The SQL statements with this text that the pool sends during the block."""
    seen: list[str] = []

    def note(*arguments: Any) -> None:
        if containing in arguments[2]:
            seen.append(arguments[2])

    engine = database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def _waiting(relay: Relay, count: int) -> None:
    """Return when this many requests wait."""
    while sum(map(len, relay.long_poll._waiting.values())) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_settled_status_is_answered_at_once(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    status = await submit(client)
    await move(database, status["id"], State.PARKED, clock=60.0)
    async with asyncio.timeout(10):
        response = await client.get(status["statusUrl"], params={"wait": 30})
    assert response.json()["status"] == "parked"


async def test_the_answer_comes_as_soon_as_the_status_is_settled(
    client: httpx.AsyncClient, alice: str, database: Database, relay: Relay
) -> None:
    status = await submit(client)
    polling = asyncio.create_task(client.get(status["statusUrl"], params={"wait": 30}))
    await _waiting(relay, 1)
    await move(database, status["id"], State.DELIVERED)
    async with asyncio.timeout(10):
        response = await polling
    assert response.json()["status"] == "delivered"


async def test_a_change_that_settles_nothing_does_not_end_the_wait(
    client: httpx.AsyncClient, alice: str, database: Database, relay: Relay
) -> None:
    status = await submit(client)
    polling = asyncio.create_task(client.get(status["statusUrl"], params={"wait": 30}))
    await _waiting(relay, 1)
    with _statements(relay.database, "uploads.sealed_receipt") as reads:
        await move(database, status["id"], State.QUEUED, delay=0.0)
        while not reads:  # noqa: ASYNC110  until the change was noticed and read
            await asyncio.sleep(0.01)
    assert not polling.done()
    await move(database, status["id"], State.CANCELLED)
    async with asyncio.timeout(10):
        assert (await polling).json()["status"] == "cancelled"


async def test_with_an_etag_any_change_ends_the_wait(
    client: httpx.AsyncClient, alice: str, database: Database, relay: Relay
) -> None:
    status = await submit(client)
    polling = asyncio.create_task(
        client.get(status["statusUrl"], params={"wait": 30}, headers={"If-None-Match": '"1"'})
    )
    await _waiting(relay, 1)
    await move(
        database,
        status["id"],
        State.SENDING,
        new_lease_id=UUID(status["id"]),
        lease_seconds=60.0,
        attempt_seconds=30.0,
        clock=60.0,
    )
    async with asyncio.timeout(10):
        response = await polling
    assert (response.status_code, response.json()["status"]) == (200, "sending")


async def test_a_status_that_differs_from_the_etag_is_answered_at_once(
    client: httpx.AsyncClient, alice: str
) -> None:
    url = (await submit(client))["statusUrl"]
    async with asyncio.timeout(10):
        response = await client.get(url, params={"wait": 30}, headers={"If-None-Match": '"0"'})
    assert response.status_code == 200


async def test_when_the_time_is_up_the_status_is_answered_as_it_is(
    client: httpx.AsyncClient, alice: str
) -> None:
    url = (await submit(client))["statusUrl"]
    began = time.monotonic()
    response = await client.get(url, params={"wait": 0.3})
    assert time.monotonic() - began >= 0.3
    assert response.json()["status"] == "queued"
    unchanged = await client.get(url, params={"wait": 0.1}, headers={"If-None-Match": '"1"'})
    assert unchanged.status_code == 304


class TestCap:
    """A setting limits the duration of a long poll."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_wait_seconds": 0.05})

    async def test_no_wait_is_longer_than_the_setting(
        self, client: httpx.AsyncClient, relay: Relay
    ) -> None:
        await factories.user_without_grant(relay)
        url = (await submit(client))["statusUrl"]
        for wait in ("3600", "1e300", "inf"):
            async with asyncio.timeout(10):
                response = await client.get(url, params={"wait": wait})
            assert (response.status_code, response.json()["status"]) == (200, "queued")


async def test_a_wait_that_is_not_a_duration_is_a_400(
    client: httpx.AsyncClient, alice: str
) -> None:
    url = (await submit(client))["statusUrl"]
    for wait in ("-1", "nan", "soon", "", "1s", "\x00"):
        assert_problem(await client.get(url, params={"wait": wait}), 400)


async def test_many_long_polls_share_one_query_per_tick(
    client: httpx.AsyncClient, alice: str, database: Database, relay: Relay
) -> None:
    statuses = [await submit(client, id=f"obs-{number}") for number in range(20)]
    polling = [
        asyncio.create_task(client.get(status["statusUrl"], params={"wait": 30}))
        for status in statuses
        for _ in range(3)
    ]
    await _waiting(relay, len(polling))
    # Nobody else uses the ledger now: every statement of the next ticks is of the long polls.
    with _statements(relay.database, "SELECT") as seen:
        async with asyncio.timeout(20):
            while len(seen) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert all(
            statement.startswith("SELECT uploads.id, uploads.revision") for statement in seen
        )
    for status in statuses:
        await move(database, status["id"], State.CANCELLED)
    async with asyncio.timeout(20):
        responses = await asyncio.gather(*polling)
    assert {response.json()["status"] for response in responses} == {"cancelled"}


async def test_after_a_cancelled_long_poll_the_next_one_still_works(
    client: httpx.AsyncClient, alice: str, database: Database, relay: Relay
) -> None:
    status = await submit(client)
    polling = asyncio.create_task(client.get(status["statusUrl"], params={"wait": 30}))
    await _waiting(relay, 1)
    polling.cancel()  # as a server does when the client goes away
    await asyncio.gather(polling, return_exceptions=True)
    again = asyncio.create_task(client.get(status["statusUrl"], params={"wait": 30}))
    await _waiting(relay, 1)
    await move(database, status["id"], State.CANCELLED)
    async with asyncio.timeout(10):
        assert (await again).json()["status"] == "cancelled"
