"""What the user's destination does not take is refused at the door, and not days later."""

from collections.abc import AsyncIterator, Sequence

import orjson
import pytest
from sqlalchemy import update
from uuid_utils.compat import uuid4

from tests.factories import resource, submission
from tests.uplift.destinations.known import hapi, oneup
from tests.uplift.ledger import rows
from uplift.destinations.destination import Destination
from uplift.dispatch import Dispatcher
from uplift.errors import VersionNotTaken
from uplift.fhir.versions import FhirVersion
from uplift.intake.accept import Acceptor
from uplift.intake.accept_batch import BatchAcceptor, Entry
from uplift.intake.back_pressure import BackPressure
from uplift.intake.labels import Labels
from uplift.intake.version_taken import takes
from uplift.ledger import batches
from uplift.ledger.database import Database
from uplift.ledger.tables import User
from uplift.ledger.users import UserRow
from uplift.sealing import KeyRing
from uplift.settings import Settings

R4_ONLY = hapi(bases={FhirVersion.R4: "https://hapi.test/r4"})
DESTINATIONS: dict[str, Destination] = {"hapi": R4_ONLY, "oneup": oneup()}


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    user = await rows.add_user(database, key_ring)
    await go_to(database, "hapi")
    return user


async def go_to(database: Database, destination: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(update(User).values(destination=destination))


@pytest.mark.usefixtures("alice")
async def test_an_upload_of_a_version_that_is_not_taken_is_refused_by_name(
    database: Database, key_ring: KeyRing, dispatcher: Dispatcher, own_settings: Settings
) -> None:
    pressure = BackPressure(database, own_settings)
    acceptor = Acceptor(database, key_ring, dispatcher, pressure, DESTINATIONS)
    with pytest.raises(VersionNotTaken, match="'hapi' takes R4 only, and this record is DSTU2"):
        await acceptor.accept("alice", submission(fhir_version="DSTU2"))
    assert (await acceptor.accept("alice", submission())).upload.destination == "hapi"


@pytest.mark.usefixtures("alice")
async def test_in_a_batch_it_is_a_problem_of_its_line_also_after_a_move(
    database: Database, key_ring: KeyRing, dispatcher: Dispatcher, own_settings: Settings
) -> None:
    pressure = BackPressure(database, own_settings)
    acceptor = BatchAcceptor(database, key_ring, dispatcher, pressure, DESTINATIONS, own_settings)

    def line(number: int, version: str) -> Entry:
        envelope = {"fhirVersion": version, "resource": resource(id=str(number))}
        return Entry(number, orjson.dumps(envelope))

    async def entries(*of: Entry) -> AsyncIterator[Sequence[Entry]]:
        yield of

    batch_id = uuid4()
    batch = await acceptor.open("alice", batch_id, Labels())
    row = await acceptor.add_entries(batch, entries(line(1, "R4"), line(2, "DSTU2")))
    assert (row.accepted, row.problems) == (1, 1)
    async with database.transaction() as connection:
        found = await batches.list_lines(connection, batch_id, after=0, limit=9)
    assert [each.problem_code for each in found] == [None, "version_not_taken"]

    # Opened while both versions were taken, and committed when the user had moved.
    await go_to(database, "oneup")
    batch = await acceptor.open("alice", uuid4(), Labels())
    await go_to(database, "hapi")
    row = await acceptor.add_entries(batch, entries(line(3, "R4"), line(4, "DSTU2")))
    assert (row.accepted, row.problems) == (1, 1)


def test_a_destination_that_this_process_does_not_know_may_take_everything() -> None:
    assert takes(DESTINATIONS, "elsewhere", "DSTU2")
    assert not takes(DESTINATIONS, "hapi", "STU3")
