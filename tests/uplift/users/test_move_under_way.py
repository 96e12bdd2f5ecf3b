"""A user moves while hundreds of uploads are under way. Both servers are real."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid4

from tests import factories
from tests.uplift.delivery.delivering import until
from uplift.destinations.derived_ids import patient_id, read_id_key
from uplift.intake.accept_batch import Entry
from uplift.intake.labels import Labels
from uplift.ledger import batches, users
from uplift.ledger.database import Database
from uplift.queues import BULK
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

UPLOADS = 400
PARKED = 250
OF_OTHERS = 20
_WRITE = {"api": "fhir", "method": "POST"}

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
async def relay(database: Database, at_hapi: Settings, settings: Settings) -> AsyncIterator[Relay]:
    """A relay from which records go to a server like HAPI, or as before to 1upHealth."""
    both = at_hapi.model_copy(
        update={
            "oneup_client_id": settings.oneup_client_id,
            "max_backoff_seconds": 0.3,
            "sweep_seconds": 0.1,
        }
    )
    async with open_relay(both) as opened:
        for name in ("alice", "bob"):
            async with database.transaction() as connection:
                await users.add_user(connection, name, opened.key_ring, destination="oneup")
            await opened.provisioner.provision(name)
        await opened.provisioner.provision("carol")
        yield opened


async def push(relay: Relay, name: str, count: int) -> dict[UUID, str]:
    """So many records of that person, as their app sends them: their ids, by those of the uploads.

    All people's records have the same ids.
    """

    async def entries() -> AsyncIterator[list[Entry]]:
        for number in range(count):
            value = {"value": number, "unit": "/min"}
            body = factories.resource(
                id=f"obs-{number}", valueQuantity=value, note=[{"text": name}]
            )
            yield [Entry(number + 1, orjson.dumps(body))]

    labels = Labels(fhir_version="R4", source="hospital-a")
    batch = await relay.batch_acceptor.open(name, uuid4(), labels)
    await relay.batch_acceptor.add_entries(batch, entries())
    async with relay.database.transaction() as connection:
        lines = await batches.list_lines(connection, batch.id, after=0, limit=count)
    return {each.upload_id: f"obs-{each.line - 1}" for each in lines if each.upload_id}


@asynccontextmanager
async def worker(relay: Relay) -> AsyncIterator[None]:
    """Delivers and sweeps meanwhile."""
    stopped = asyncio.Event()

    async def work() -> None:
        while not stopped.is_set():
            await relay.sweeper.sweep()
            await relay.deliverer.deliver(BULK)
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as working:
        working.create_task(work())
        try:
            yield
        finally:
            # Not cancelled: redis-py's `wait_for` may lose that on Python 3.11 (gh-86296).
            stopped.set()


async def states(database: Database, name: str, destination: str) -> dict[UUID, tuple[str, bool]]:
    """The person's uploads for it: the state of each, and whether it may be there."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            text(
                "SELECT u.id, u.state, u.maybe_sent"
                " FROM uploads AS u JOIN users AS p ON p.id = u.user_id"
                " WHERE p.app_user_id = :name AND u.destination = :destination"
            ),
            {"name": name, "destination": destination},
        )
        return {row.id: (row.state, row.maybe_sent) for row in rows}


async def until_delivered(database: Database, name: str, destination: str) -> None:
    """Wait until everything of the person that goes there is delivered there."""

    async def is_delivered() -> bool:
        found = await states(database, name, destination)
        return {state for state, _ in found.values()} == {"delivered"}

    await until(is_delivered)


async def is_moving(database: Database) -> bool:
    async with database.transaction() as connection:
        return bool(await connection.scalar(text("SELECT bool_or(moving) FROM users")))


def written_for(upstream: SandboxServer, name: str, *, after: int = 0) -> list[str]:
    """The ids of the records in the requests that wrote for that person, or tried to."""
    (person,) = {each["user"] for each in upstream.resources(user=name)}
    return [
        str(each["id"])
        for each in upstream.requests(api="fhir", after=after)
        if each["method"] == "POST" and each["user"] == person
    ]


def last_request(upstream: SandboxServer) -> int:
    return int(upstream.requests()[-1]["number"])


def assert_has_all_of_theirs_once(
    hapi: SandboxServer, settings: Settings, *, count: int = UPLOADS
) -> None:
    """Alice's and Carol's records, each once, and about nobody else."""
    id_key = read_id_key(settings)
    assert id_key is not None
    found = [orjson.loads(each) for each in hapi.stored_bytes(type="Observation")]
    about = Counter((each["note"][0]["text"], each["subject"]["reference"]) for each in found)
    persons = {name: patient_id(id_key, app_user_id=name) for name in ("alice", "carol")}
    assert about == {
        ("alice", f"Patient/{persons['alice']}"): count,
        ("carol", f"Patient/{persons['carol']}"): OF_OTHERS,
    }
    assert len({each["id"] for each in found}) == count + OF_OTHERS
    assert {each["id"] for each in hapi.resources(type="Patient")} == set(persons.values())


async def test_all_of_theirs_arrives_and_nothing_new_goes_to_the_old_destination(
    relay: Relay, upstream: SandboxServer, hapi: SandboxServer
) -> None:
    database = relay.database
    upstream.faults(
        {"kind": "cut", "commit": True, "match": _WRITE, "probability": 0.05},
        {"kind": "cut", "match": _WRITE, "probability": 0.05, "seed": 1},
        {"kind": "too_many_requests", "match": _WRITE, "probability": 0.05, "seed": 2},
        {"kind": "slow", "seconds": 0.2, "match": _WRITE},
    )
    records = await push(relay, "alice", UPLOADS)
    for name in ("bob", "carol"):
        await push(relay, name, OF_OTHERS)

    async with worker(relay):

        async def is_under_way() -> bool:
            found = (await states(database, "alice", "oneup")).values()
            kinds = Counter(
                "retrying" if state == "queued" and doubtful else state for state, doubtful in found
            )
            return kinds["delivered"] > 50 and kinds["sending"] > 0 and kinds["retrying"] > 0

        await until(is_under_way)
        await relay.mover.move("alice", "hapi")
        moved_at = last_request(upstream)
        stay = await states(database, "alice", "oneup")
        had_begun = {
            records[upload_id]
            for upload_id, (state, doubtful) in stay.items()
            if state == "sending" or doubtful
        }
        assert 0 < len(had_begun) < UPLOADS / 2
        upstream.clear_faults()
        # The app sees the new sync token, and sends everything again.
        again = await push(relay, "alice", UPLOADS)

        async def has_moved() -> bool:
            return not await is_moving(database)

        await until(has_moved)
        assert set(written_for(upstream, "alice", after=moved_at)) <= had_begun
        ended_at = last_request(upstream)
        for name, destination in (("alice", "hapi"), ("bob", "oneup"), ("carol", "hapi")):
            await until_delivered(database, name, destination)
        assert await push(relay, "alice", UPLOADS) == again, "all of it is there"
        for _ in range(3):
            await relay.sweeper.sweep()
            await relay.deliverer.deliver(BULK)
    assert written_for(upstream, "alice", after=ended_at) == []
    assert len(written_for(upstream, "bob")) >= OF_OTHERS
    assert_has_all_of_theirs_once(hapi, relay.settings)
    # What was sent once more there was looked up first.
    assert upstream.counts(user="alice")["total"]["duplicates"] == 0


async def test_what_is_parked_for_a_consent_that_ended_arrives_too(
    relay: Relay, upstream: SandboxServer, hapi: SandboxServer
) -> None:
    database = relay.database
    upstream.faults({"kind": "slow", "seconds": 0.2, "match": _WRITE})
    await push(relay, "alice", PARKED)
    await push(relay, "carol", OF_OTHERS)
    async with worker(relay):

        async def some_delivered() -> bool:
            found = (await states(database, "alice", "oneup")).values()
            return Counter(state for state, _ in found)["delivered"] > 50

        await until(some_delivered)
        upstream.faults({"kind": "end_consent"}, {"kind": "expire_tokens"})

        async def all_parked() -> bool:
            found = (await states(database, "alice", "oneup")).values()
            return {state for state, _ in found} == {"delivered", "parked"}

        await until(all_parked)
        before = last_request(upstream)
        await relay.mover.move("alice", "hapi")
        await push(relay, "alice", PARKED)
        for name in ("alice", "carol"):
            await until_delivered(database, name, "hapi")
    assert not await is_moving(database)
    assert written_for(upstream, "alice", after=before) == []
    assert_has_all_of_theirs_once(hapi, relay.settings, count=PARKED)
