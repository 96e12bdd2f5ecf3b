"""?wait=: the answer is held until it is worth giving, and no longer than allowed."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
def _statements(database: Database, holding: str) -> Iterator[list[str]]:
    """The SQL statements with that text that this pool sends during the block."""
    seen: list[str] = []

    def note(*arguments: Any) -> None:
        if holding in arguments[2]:
            seen.append(arguments[2])

    engine = database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def _waiting(relay: Relay, count: int) -> None:
    """Return once so many requests wait."""
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
    held = asyncio.create_task(client.get(status["statusUrl"], params={"wait": 30}))
    await _waiting(relay, 1)
    await move(database, status["id"], State.DELIVERED)
    async with asyncio.timeout(10):
        response = await held
    assert response.json()["status"] == "delivered"


async def test_a_change_that_settles_nothing_does_not_end_the_wait(
    client: httpx.AsyncClient, alice: str, database: Database, relay: Relay
) -> None:
    status = await submit(client)
    held = asyncio.create_task(client.get(status["statusUrl"], params={"wait": 30}))
    await _waiting(relay, 1)
    with _statements(relay.database, "uploads.sealed_receipt") as reads:
        await move(database, status["id"], State.QUEUED, delay=0.0)
        while not reads:  # noqa: ASYNC110  until the change was noticed and read
            await asyncio.sleep(0.01)
    assert not held.done()
    await move(database, status["id"], State.CANCELLED)
    async with asyncio.timeout(10):
        assert (await held).json()["status"] == "cancelled"


async def test_with_an_etag_any_change_ends_the_wait(
    client: httpx.AsyncClient, alice: str, database: Database, relay: Relay
) -> None:
    status = await submit(client)
    held = asyncio.create_task(
        client.get(status["statusUrl"], params={"wait": 30}, headers={"If-None-Match": '"1"'})
    )
    await _waiting(relay, 1)
    await move(
        database,
        status["id"],
        State.SENDING,
        new_lease_id=status["id"],
        lease_seconds=60.0,
        clock=60.0,
    )
    async with asyncio.timeout(10):
        response = await held
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
    """A deployment says how long an answer may be held at most."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_wait_seconds": 0.2})

    @pytest.mark.parametrize("wait", ["3600", "1e300", "inf"])
    async def test_no_wait_is_longer_than_the_setting(
        self, client: httpx.AsyncClient, relay: Relay, wait: str
    ) -> None:
        await factories.user_without_grant(relay)
        url = (await submit(client))["statusUrl"]
        async with asyncio.timeout(10):
            response = await client.get(url, params={"wait": wait})
        assert (response.status_code, response.json()["status"]) == (200, "queued")


async def test_a_wait_that_is_no_duration_is_a_400(client: httpx.AsyncClient, alice: str) -> None:
    url = (await submit(client))["statusUrl"]
    for wait in ("-1", "nan", "soon", "", "1s", "\x00"):
        assert_problem(await client.get(url, params={"wait": wait}), 400)


async def test_many_who_wait_share_one_query_a_tick(
    client: httpx.AsyncClient, alice: str, database: Database, relay: Relay
) -> None:
    statuses = [await submit(client, id=f"obs-{number}") for number in range(20)]
    held = [
        asyncio.create_task(client.get(status["statusUrl"], params={"wait": 30}))
        for status in statuses
        for _ in range(3)
    ]
    await _waiting(relay, len(held))
    # Nobody else touches the ledger now: every statement of the next ticks is the watcher's.
    with _statements(relay.database, "SELECT") as seen:
        while len(seen) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert all(
            statement.startswith("SELECT uploads.id, uploads.revision") for statement in seen
        )
    for status in statuses:
        await move(database, status["id"], State.CANCELLED)
    async with asyncio.timeout(20):
        responses = await asyncio.gather(*held)
    assert {response.json()["status"] for response in responses} == {"cancelled"}


async def test_nothing_is_kept_of_who_has_waited(
    client: httpx.AsyncClient, alice: str, database: Database, relay: Relay
) -> None:
    status = await submit(client)
    await client.get(status["statusUrl"], params={"wait": 0.3})
    held = asyncio.create_task(client.get(status["statusUrl"], params={"wait": 30}))
    await _waiting(relay, 1)
    held.cancel()  # as a server does whose client went away
    await asyncio.gather(held, return_exceptions=True)
    await asyncio.sleep(0.5)  # two ticks
    assert not relay.long_poll._waiting
    assert not relay.long_poll._revisions
    # And it still watches for the next one.
    again = asyncio.create_task(client.get(status["statusUrl"], params={"wait": 30}))
    await _waiting(relay, 1)
    await move(database, status["id"], State.CANCELLED)
    async with asyncio.timeout(10):
        assert (await again).json()["status"] == "cancelled"
