"""Two destinations at once: one that stalls keeps nothing of the other waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from tests import factories
from tests.uplift.delivery.delivering import until
from tests.uplift.destinations.known import hapi
from uplift.address_check import AddressCheck
from uplift.intake.accept import Accepted
from uplift.ledger import destinations, users
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.queues import UPLOADS
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

SLOTS = 8
UPLOADS_EACH = 20


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """A server that accepts connections and never answers; its port."""
    open_until = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await open_until.wait()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        open_until.set()
        server.close()


def two(settings: Settings, folder: Path, **bases: str) -> Settings:
    """Settings of a deployment with these destinations, each like HAPI."""
    file = folder / "destinations.toml"
    tables = (f'[{name}]\npreset = "hapi"\nr4 = "{base}"\n' for name, base in bases.items())
    file.write_text("".join(tables))
    return settings.model_copy(
        update={
            "destinations_file": file,
            "destination": next(iter(bases)),
            "max_in_flight": SLOTS,
            "attempt_seconds": 20,
            "lease_seconds": 40,
        }
    )


async def bring(relay: Relay, name: str, destination: str) -> list[Accepted]:
    """A new user of that destination, and what they bring."""
    async with relay.database.transaction() as connection:
        await users.add_user(connection, name, relay.key_ring, destination=destination)
    return [
        await factories.accepted(relay, name, id=f"obs-{number}") for number in range(UPLOADS_EACH)
    ]


async def counts(database: Database, destination: str) -> dict[str, int]:
    """How many uploads for it are in each state."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT state, count(*) AS n FROM uploads WHERE destination = :d GROUP BY state"),
            {"d": destination},
        )
        return {row.state: row.n for row in rows}


async def test_what_goes_elsewhere_does_not_wait_for_a_server_that_never_answers(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    with SandboxServer(SandboxConfig(like="hapi")) as server:
        async with AsyncExitStack() as silent:
            port = await silent.enter_async_context(silent_server())
            both = two(
                settings, tmp_path, dead=f"http://127.0.0.1:{port}/r4", alive=f"{server.url}/r4"
            )
            async with open_relay(both) as relay:
                await bring(relay, "alice", "dead")
                first = asyncio.create_task(relay.deliverer.deliver(UPLOADS))

                async def stalls() -> bool:
                    return (await counts(database, "dead")).get(State.SENDING, 0) > 0

                await until(stalls)
                await bring(relay, "bob", "alive")
                second = asyncio.create_task(relay.deliverer.deliver(UPLOADS))

                async def all_there() -> bool:
                    return (await counts(database, "alive")).get(State.DELIVERED) == UPLOADS_EACH

                await until(all_there, seconds=15)
                assert (await counts(database, "dead")).get(State.SENDING, 0) > 0
                relay.deliverer.stop()
                await silent.aclose()  # ends the attempts, while the relay is open
                await asyncio.gather(first, second)


async def test_nothing_is_sent_where_the_address_changed_until_a_person_decides(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    with (
        SandboxServer(SandboxConfig(like="hapi")) as old,
        SandboxServer(SandboxConfig(like="hapi")) as new,
    ):
        async with open_relay(two(settings, tmp_path, hapi=f"{old.url}/r4")) as relay:
            sent = await bring(relay, "alice", "hapi")
            await relay.deliverer.deliver(UPLOADS)
        async with open_relay(two(settings, tmp_path, hapi=f"{new.url}/r4")) as relay:
            waiting = await bring(relay, "bob", "hapi")
            await relay.deliverer.deliver(UPLOADS)
            assert await counts(database, "hapi") == {"delivered": len(sent), "queued": len(sent)}
            assert new.requests() == []
            async with database.transaction() as connection:
                await destinations.change_address(
                    connection, "hapi", relay.destinations["hapi"].address, by=SYSTEM
                )
        async with open_relay(two(settings, tmp_path, hapi=f"{new.url}/r4")) as relay:
            await relay.deliverer.deliver(UPLOADS)
            assert await counts(database, "hapi") == {"delivered": 2 * len(waiting)}


async def test_a_decision_takes_effect_within_seconds(database: Database) -> None:
    now = 0.0
    first = AddressCheck(database, {"hapi": hapi("http://a.test")})
    assert await first.usable() == ["hapi"]
    moved = hapi("http://b.test")
    second = AddressCheck(database, {"hapi": moved}, now=lambda: now)
    assert await second.usable() == []
    async with database.transaction() as connection:
        await destinations.change_address(connection, "hapi", moved.address, by=SYSTEM)
    assert await second.usable() == []
    now = 5.0
    assert await second.usable() == ["hapi"]


async def test_what_was_delivered_to_a_server_that_is_empty_now_is_forgotten(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    with SandboxServer(SandboxConfig(like="hapi")) as server:
        async with open_relay(two(settings, tmp_path, hapi=f"{server.url}/r4")) as relay:
            (first, *_) = await bring(relay, "alice", "hapi")
            await relay.deliverer.deliver(UPLOADS)
            assert (await factories.accepted(relay, id="obs-0")).upload.id == first.upload.id
            async with database.transaction() as connection:
                before = await users.require_user(connection, "alice")
                assert await destinations.forget_some(connection, "hapi", limit=99) is not None
                assert await destinations.ask_for_all(connection, ["hapi"]) == 1
                after = await users.require_user(connection, "alice")
            assert after.sync_token != before.sync_token
            again = await factories.accepted(relay, id="obs-0")
            assert (again.duplicate, again.upload.id == first.upload.id) == (False, False)
            await relay.deliverer.deliver(UPLOADS)
            assert (await factories.status(relay, again)).state is State.DELIVERED


pytestmark = pytest.mark.usefixtures("database")
