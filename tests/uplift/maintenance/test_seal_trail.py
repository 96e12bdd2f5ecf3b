"""The audit trail is sealed after commit, and each kind of tampering with it shows."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.keys import KEY_RING, MASTER_KEYS
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.ledger import audit
from uplift.ledger.audit import SYSTEM, Action, Actor
from uplift.ledger.database import Database
from uplift.maintenance.rotate_keys import Rotator
from uplift.maintenance.seal_trail import Sealer
from uplift.maintenance.verify_trail import Verified, verify_trail
from uplift.sealing import KeyRing
from uplift.settings import Settings

pytestmark = pytest.mark.usefixtures("no_users_left")


@pytest.fixture(autouse=True)
async def alone(database: Database) -> None:
    """No transaction of another test is open: nothing behind its start would be sealed."""
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND xact_start IS NOT NULL"
                " AND backend_type = 'client backend'"
            )
        )


@pytest.fixture
async def as_app(database: Database, postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """The ledger as the processes have it."""
    opened = Database.connect(Settings(database_url=SecretStr(postgres.app_url)))
    yield opened
    await opened.close()


@pytest.fixture
async def as_owner(database: Database, postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """The ledger as its owner has it."""
    opened = Database.connect(Settings(database_url=SecretStr(postgres.owner_url)))
    yield opened
    await opened.close()


async def note(database: Database, *actors: str) -> None:
    """Events, each in a transaction of its own."""
    for actor in actors:
        async with database.transaction() as connection:
            await audit.note(connection, Actor(actor), Action.PAUSED)


async def seal(database: Database, *, max_events: int = 1000) -> list[str]:
    """Seal all that can be sealed. Returns the names of the seals."""
    before = await names_of_seals(database)
    sealer = Sealer(database, KEY_RING, max_events=max_events)
    while await sealer.seal() == 0:
        pass
    return [name for name in await names_of_seals(database) if name not in before]


async def names_of_seals(database: Database) -> list[str]:
    """As the log has them."""
    async with database.transaction() as connection:
        found = await connection.execute(
            text("SELECT number, mac FROM audit_seals ORDER BY number")
        )
        return [f"{number}:{mac.hex()}" for number, mac in found]


async def verify(database: Database, last: str = "") -> Verified:
    return await verify_trail(database, KEY_RING, last=last)


async def three_seals(database: Database) -> list[str]:
    """A trail of six events under three seals."""
    names = []
    for actors in (("a", "b"), ("c", "d"), ("e", "f")):
        await note(database, *actors)
        names += await seal(database)
    assert len(names) == 3
    return names


async def do(connection: AsyncConnection, *statements: str) -> None:
    for statement in statements:
        await connection.execute(text(statement))


async def test_what_was_added_is_sealed_once_and_found_as_it_was(as_app: Database) -> None:
    names = await three_seals(as_app)
    assert await seal(as_app) == []
    assert [name.split(":")[0] for name in names] == ["1", "2", "3"]
    found = await verify(as_app, names[-1])
    assert (found.seals, found.events, found.unsealed, found.problems) == (3, 6, 0, [])
    await note(as_app, "g")
    assert (await verify(as_app, "3")).unsealed == 1


async def test_an_event_that_commits_late_is_sealed_with_its_transaction(
    as_app: Database,
) -> None:
    async with as_app.transaction() as late:
        await audit.note(late, Actor("late"), Action.PAUSED)
        await note(as_app, "later")
        # Its transaction is older, so neither can be sealed yet.
        assert await seal(as_app) == []
    await seal(as_app)
    found = await verify(as_app)
    assert (found.events, found.problems) == (2, [])


async def test_many_events_get_several_seals_and_a_transaction_is_never_cut(
    as_app: Database,
) -> None:
    await note(as_app, *"abcde")
    async with as_app.transaction() as connection:
        for _ in range(7):
            await audit.note(connection, SYSTEM, Action.PAUSED)
    await note(as_app, "z")
    assert len(await seal(as_app, max_events=3)) >= 4
    found = await verify(as_app)
    assert (found.events, found.unsealed, found.problems) == (13, 0, [])


async def test_of_two_that_seal_at_once_one_does(as_app: Database) -> None:
    await note(as_app, "a")
    await seal(as_app)
    for round_ in range(5):
        await note(as_app, f"{round_}")
        await asyncio.gather(*(Sealer(as_app, KEY_RING).seal() for _ in range(4)))
    found = await verify(as_app)
    assert (found.seals, found.events, found.problems) == (6, 6, [])


async def test_seals_hold_over_a_rotation_of_the_master_keys(as_app: Database) -> None:
    names = await three_seals(as_app)
    rotated = KeyRing.parse(f"{KeyRing.new_entry('new')},{MASTER_KEYS}")
    await Rotator(as_app, rotated).rotate()
    found = await verify_trail(as_app, rotated, last=names[-1])
    assert (found.seals, found.problems) == (3, [])


async def test_a_restored_ledger_begins_a_series_which_its_first_seal_says(
    as_app: Database, database: Database
) -> None:
    await three_seals(as_app)
    await note(as_app, "not-sealed-before")
    async with database.transaction() as connection:
        await do(
            connection,
            # As a dump that was restored on another server, where transactions begin at 700.
            "SET LOCAL session_replication_role = replica",
            "UPDATE audit_events SET transaction_id = '9000000000000000000'"
            " WHERE actor = 'not-sealed-before'",
            "INSERT INTO restores (since, look_until) VALUES (now(), now())",
        )
    names = await seal(as_app)
    await note(as_app, "after")
    names += await seal(as_app)
    async with database.transaction() as connection:
        begins = (
            await connection.execute(text("SELECT begins, events FROM audit_seals ORDER BY number"))
        ).all()
    assert [tuple(row) for row in begins] == [
        ("new", 2),
        (None, 2),
        (None, 2),
        ("restored", 1),
        (None, 1),
    ]
    found = await verify(as_app, names[-1])
    assert (found.seals, found.events, found.unsealed, found.problems) == (5, 8, 0, [])


async def test_a_series_begins_when_nobody_adds_events(
    as_app: Database, database: Database
) -> None:
    await three_seals(as_app)
    async with database.transaction() as connection:
        await do(connection, "INSERT INTO restores (since, look_until) VALUES (now(), now())")
    async with as_app.transaction() as adding:
        await audit.note(adding, Actor("late"), Action.PAUSED)
        with pytest.raises(DBAPIError):
            await Sealer(as_app, KEY_RING).seal()
    await seal(as_app)
    await note(as_app, "after")
    await seal(as_app)
    found = await verify(as_app)
    assert (found.events, found.unsealed, found.problems) == (8, 0, [])


REFUSED = {
    "change an event": "UPDATE audit_events SET actor = 'x' WHERE actor = 'c'",
    "remove an event": "DELETE FROM audit_events WHERE actor = 'c'",
    "empty the trail": "TRUNCATE audit_events, audit_seals",
    "add an event to the past": "INSERT INTO audit_events (actor, action, transaction_id)"
    " SELECT 'x', 'y', transaction_id FROM audit_events LIMIT 1",
    "change a seal": "UPDATE audit_seals SET events = 1",
    "remove a seal": "DELETE FROM audit_seals WHERE number = 2",
    "switch the trigger off": "ALTER TABLE audit_events DISABLE TRIGGER ALL",
    "destroy the audit key": "DELETE FROM deployment_keys",
}


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED)
async def test_the_processes_role_cannot(as_app: Database, statement: str) -> None:
    names = await three_seals(as_app)
    with pytest.raises(DBAPIError):
        async with as_app.transaction() as connection:
            await do(connection, statement)
    assert (await verify(as_app, names[-1])).problems == []


async def test_a_seal_that_the_processes_role_adds_is_not_believed_and_hinders_nothing(
    as_app: Database,
) -> None:
    await three_seals(as_app)
    async with as_app.transaction() as connection:
        await do(
            connection,
            "INSERT INTO audit_seals SELECT 9223372036854775807, '\\x00', previous_mac, at, begins,"
            " after_id, server, from_transaction, '9000000000000000000', events, digest"
            " FROM audit_seals WHERE number = 3",
        )
    await note(as_app, "g")
    assert [name.split(":")[0] for name in await seal(as_app)] == ["4"]
    found = await verify(as_app)
    assert found.problems == ["Seal 9223372036854775807 was changed, or Uplift did not make it."]
    assert (found.seals, found.events) == (4, 7)


async def test_new_events_of_the_processes_role_are_not_found(as_app: Database) -> None:
    """This is one of the two that are not: it may add events, false ones too."""
    names = await three_seals(as_app)
    await note(as_app, "key:somebody-else")
    await seal(as_app)
    assert (await verify(as_app, names[-1])).problems == []


_OFF = (
    "ALTER TABLE audit_events DISABLE TRIGGER ALL",
    "ALTER TABLE audit_seals DISABLE TRIGGER ALL",
)
_ON = tuple(statement.replace("DISABLE", "ENABLE") for statement in _OFF)
_COPY = "INSERT INTO audit_events (id, at, actor, action, transaction_id) OVERRIDING SYSTEM VALUE"


@dataclass(frozen=True)
class Tampering:
    """What the owner does, and what `verify` must say."""

    statements: tuple[str, ...]
    said: str


TAMPERING = {
    "an event was changed": Tampering(
        ("UPDATE audit_events SET actor = 'x' WHERE actor = 'c'",),
        "seal 2 of .*an event was changed",
    ),
    "an event's time was changed": Tampering(
        ("UPDATE audit_events SET at = at - interval '1 microsecond' WHERE actor = 'c'",),
        "seal 2 of .*an event was changed",
    ),
    "two events were exchanged": Tampering(
        ("UPDATE audit_events SET actor = translate(actor, 'ab', 'ba')",),
        "seal 1 of .*an event was changed",
    ),
    "an event was removed": Tampering(
        ("DELETE FROM audit_events WHERE actor = 'c'",),
        r"seal 2 of .*1 event\(s\) are missing",
    ),
    "an event was moved to later": Tampering(
        ("UPDATE audit_events SET transaction_id = pg_current_xact_id() WHERE actor = 'c'",),
        r"seal 2 of .*1 event\(s\) are missing",
    ),
    "an event was added to the past": Tampering(
        (_COPY + " VALUES (-1, now(), 'x', 'y', (TABLE of_c))",),
        r"seal 2 of .*1 event\(s\) were added",
    ),
    "an event was added before all others": Tampering(
        (_COPY + " VALUES (-1, now(), 'x', 'y', '3')",),
        r"seal 1 of .*1 event\(s\) were added",
    ),
    "a seal was changed with its events": Tampering(
        (
            "DELETE FROM audit_events WHERE actor = 'c'",
            "UPDATE audit_seals SET events = 1 WHERE number = 2",
        ),
        "Seal 2 was changed",
    ),
    "a seal was removed with its events": Tampering(
        (
            "DELETE FROM audit_events WHERE actor IN ('c', 'd')",
            "DELETE FROM audit_seals WHERE number = 2",
        ),
        "seals between 1 and 3 are missing",
    ),
    "a seal was replaced by another": Tampering(
        (
            "DELETE FROM audit_seals WHERE number = 2",
            "UPDATE audit_seals SET number = 2 WHERE number = 1",
        ),
        "Seal 2 was changed",
    ),
    "the audit key was replaced": Tampering(
        ("DELETE FROM deployment_keys WHERE name = 'audit'",), "Seal 1 was changed"
    ),
    "everything was removed": Tampering(
        ("DELETE FROM audit_events", "DELETE FROM audit_seals"), "There is no seal"
    ),
}


_OF_C = (
    "CREATE TEMPORARY TABLE of_c ON COMMIT DROP AS"
    " SELECT transaction_id FROM audit_events WHERE actor = 'c'"
)


@asynccontextmanager
async def without_triggers(as_owner: Database) -> AsyncIterator[AsyncConnection]:
    async with as_owner.transaction() as connection:
        await do(connection, *_OFF)
        yield connection
        await do(connection, *_ON)


@pytest.mark.parametrize("what", TAMPERING.values(), ids=TAMPERING)
async def test_what_the_owner_does_to_what_is_sealed_is_found(
    as_app: Database, as_owner: Database, what: Tampering
) -> None:
    last = (await three_seals(as_app))[-1]
    async with without_triggers(as_owner) as connection:
        await do(connection, _OF_C, *what.statements)
    found = await verify(as_app)
    assert any(re.search(what.said, problem) for problem in found.problems), found.problems
    # And still after more was added and sealed.
    await note(as_app, "g")
    await seal(as_app)
    assert (await verify(as_app, last)).problems


async def test_an_end_that_was_cut_off_is_found_by_the_last_seal_of_the_log(
    as_app: Database, as_owner: Database
) -> None:
    names = await three_seals(as_app)
    async with without_triggers(as_owner) as connection:
        await do(
            connection,
            "DELETE FROM audit_events WHERE actor IN ('c', 'd', 'e', 'f')",
            "DELETE FROM audit_seals WHERE number > 1",
        )
    assert (await verify(as_app)).problems == []
    assert "3" in (await verify(as_app, "3")).problems[0]
    await note(as_app, "x", "y")
    await seal(as_app)
    await note(as_app, "z")
    assert [name.split(":")[0] for name in await seal(as_app)] == ["3"]
    # The number is there again, under another MAC.
    assert (await verify(as_app, "3")).problems == []
    assert names[-1] in (await verify(as_app, names[-1])).problems[0]


async def test_what_is_not_sealed_yet_the_owner_can_change_unseen(
    as_app: Database, as_owner: Database
) -> None:
    """This is the other one: what is younger than the last seal, so two seconds at most."""
    names = await three_seals(as_app)
    await note(as_app, "g")
    async with without_triggers(as_owner) as connection:
        await do(connection, "UPDATE audit_events SET actor = 'x' WHERE actor = 'g'")
    await seal(as_app)
    assert (await verify(as_app, names[-1])).problems == []
