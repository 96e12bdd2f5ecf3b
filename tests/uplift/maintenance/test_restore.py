"""A ledger that went back in time: a real dump, a real restore, and no duplicates upstream."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text

from tests import factories
from tests.uplift.delivery.delivering import deliver_only
from tests.uplift.ledger import rows
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.cli.local.embedded.programs import find_programs
from uplift.errors import ConfigurationError
from uplift.intake.accept import Accepted
from uplift.intake.labels import Labels
from uplift.intake.submission import parse
from uplift.ledger import dead_letters, leases
from uplift.ledger.audit import SYSTEM, Action, list_events
from uplift.ledger.database import Database
from uplift.ledger.tables import Restore, Upload, User
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.maintenance.restore import Restorer
from uplift.sandbox.testing import SandboxServer
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

_DAY = 86_400.0


@pytest.fixture(scope="module")
def other_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """Where backups are restored."""
    hasty = {"fsync": "off", "synchronous_commit": "off"}
    with EmbeddedPostgres(tmp_path_factory.mktemp("other"), settings=hasty) as server:
        yield server


def dump(server: EmbeddedPostgres, file: Path) -> None:
    """A backup, as docs/operations.md makes it."""
    _run("pg_dump", "--format=custom", f"--file={file}", server.url)


def restore(file: Path, server: EmbeddedPostgres) -> None:
    _run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={server.url}", str(file))


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(find_programs(None) / program), *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


async def deliver(relay: Relay) -> None:
    """Deliver until every upload has ended."""
    for _ in range(200):
        async with relay.database.transaction() as connection:
            left = (
                await connection.execute(
                    text(
                        "SELECT id, next_attempt_at <= now() AS due FROM uploads"
                        " WHERE state = 'queued'"
                    )
                )
            ).all()
        if not left:
            return
        await deliver_only(relay, *(row.id for row in left if row.due))
        await asyncio.sleep(0.05)
    raise AssertionError("Some uploads did not end.")


@asynccontextmanager
async def restored(
    settings: Settings, server: EmbeddedPostgres, backup: Path
) -> AsyncIterator[Relay]:
    restore(backup, server)
    async with open_relay(
        settings.model_copy(update={"database_url": SecretStr(server.url), "attempt_seconds": 0.5})
    ) as opened:
        yield opened


async def states(relay: Relay) -> list[str]:
    async with relay.database.transaction() as connection:
        return sorted(await connection.scalars(select(Upload.state)))


def stored(upstream: SandboxServer) -> dict[str, list[float]]:
    """The values of all versions of each resource at 1upHealth, in their order."""
    found: dict[str, list[float]] = {}
    for each in upstream.resources():
        versions = [orjson.loads(body) for body in upstream.stored_bytes(id=each["id"])]
        found[each["id"]] = [one["valueQuantity"]["value"] for one in versions]
    return found


async def submit(relay: Relay, name: str, value: float) -> Accepted:
    return await factories.accepted(relay, id=name, valueQuantity={"value": value})


async def test_after_a_restore_nothing_is_duplicated_and_every_state_is_true(
    relay: Relay,
    settings: Settings,
    upstream: SandboxServer,
    postgres: EmbeddedPostgres,
    other_postgres: EmbeddedPostgres,
    tmp_path: Path,
) -> None:
    await factories.user(relay)
    # Before the backup: some delivered, some not yet.
    for name in ("delivered", "updated-later"):
        await submit(relay, name, 1)
    await deliver(relay)
    for name in ("on-its-way", "overtaken", "never-sent"):
        await submit(relay, name, 1)
    since = datetime.now(UTC)
    dump(postgres, tmp_path / "backup")
    # After the backup: waiting uploads are delivered, records change, new ones come. Then the
    # ledger is lost, and with it every trace of that.
    (unsent,) = [await _id_of(relay, 5)]
    await _deliver_but(relay, unsent)
    await submit(relay, "updated-later", 2)
    await submit(relay, "overtaken", 2)
    await submit(relay, "came-later", 1)
    await _deliver_but(relay, unsent)
    assert stored(upstream) == {
        "delivered": [1], "updated-later": [1, 2], "on-its-way": [1], "overtaken": [1, 2],
        "came-later": [1],
    }  # fmt: skip
    before = stored(upstream)

    async with restored(settings, other_postgres, tmp_path / "backup") as again:
        assert await states(again) == ["delivered"] * 2 + ["queued"] * 3
        marked = await Restorer(again.database, again.settings).mark(since, look_seconds=_DAY)
        assert (marked.unfinished, marked.ended, marked.locked) == (3, 0, 0)
        assert (marked.grants, marked.brought) == (1, 0)

        await deliver(again)

        # What 1upHealth has is found. What was never sent is sent. A newer version there is not
        # overwritten: a person decides, or the device sends the newer version again.
        assert stored(upstream) == {**before, "never-sent": [1]}
        assert await states(again) == ["delivered"] * 4 + ["refused"]
        async with again.database.transaction() as connection:
            (refused,) = await connection.scalars(
                select(Upload.reason).where(Upload.state == State.REFUSED)
            )
        assert refused == Reason.NEWER_UPSTREAM

        # The device sends again what it does not know as delivered.
        for name, value in (("updated-later", 2), ("overtaken", 2), ("came-later", 1)):
            accepted = await submit(again, name, value)
            assert not accepted.duplicate
            assert accepted.upload.maybe_sent
        await deliver(again)

        assert stored(upstream) == {**before, "never-sent": [1]}
        assert await states(again) == ["delivered"] * 7 + ["refused"]
        # From then on, everything is as before.
        await submit(again, "overtaken", 3)
        await deliver(again)
        assert stored(upstream)["overtaken"] == [1, 2, 3]


async def _id_of(relay: Relay, number: int) -> Any:
    async with relay.database.transaction() as connection:
        return (await connection.scalars(select(Upload.id).order_by(Upload.id))).all()[number - 1]


async def _deliver_but(relay: Relay, other: Any) -> None:
    async with relay.database.transaction() as connection:
        ids = await connection.scalars(
            select(Upload.id).where(Upload.state == State.QUEUED, Upload.id != other)
        )
    await deliver_only(relay, *ids)


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring)


async def mark(database: Database, **how: Any) -> Any:
    settings = Settings(attempt_seconds=60, settle_seconds=60)
    since = how.pop("since", datetime.now(UTC) - timedelta(hours=1))
    return await Restorer(database, settings).mark(since, look_seconds=_DAY, **how)


@pytest.mark.parametrize(
    ("state", "marked"),
    [
        (State.QUEUED, True),
        (State.PARKED, True),
        (State.REJECTED, True),
        (State.REFUSED, True),
        (State.EXPIRED, True),
        (State.SENDING, False),  # its claim marked it
        (State.DELIVERED, False),
        (State.CANCELLED, False),
        (State.SUPERSEDED, False),
    ],
)
async def test_uploads_that_can_be_sent_are_marked(
    database: Database, alice: UserRow, state: State, marked: bool
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, state, empty_searches=1)
    before = await rows.row(database, upload_id)

    done = await mark(database)

    row = await rows.row(database, upload_id)
    assert row.maybe_sent is marked
    assert row.empty_searches == (0 if marked else 1)
    assert row.state == before.state
    assert done.unfinished + done.ended == int(marked)
    if state is State.QUEUED:
        assert row.reason == Reason.RESTORED
        # The lost ledger may have had an attempt in flight. Then 1upHealth has time to settle.
        waits = (row.next_attempt_at - before.next_attempt_at).total_seconds()
        assert 119 < waits < 130


async def test_marking_again_is_harmless_and_audited_each_time(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(3)]
    since = datetime.now(UTC) - timedelta(minutes=5)
    first = await mark(database, since=since)
    second = await mark(database, since=since)
    assert (first.unfinished, second.unfinished) == (3, 3)
    assert second.look_until > first.look_until
    assert all([(await rows.row(database, id_)).maybe_sent for id_ in ids])
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(Restore)) == 1
        events = await list_events(connection)
    assert [each.action for each in events].count(Action.RESTORED) == 2


async def test_locked_uploads_are_counted(database: Database, alice: UserRow) -> None:
    locked, free = await rows.put(database, alice), await rows.put(database, alice)
    async with database.transaction() as other:
        await other.execute(select(Upload.id).where(Upload.id == locked).with_for_update())
        done = await mark(database)
    assert (done.unfinished, done.locked) == (1, 1)
    assert (await rows.row(database, free)).maybe_sent
    assert (await mark(database)).locked == 0


async def test_a_time_in_the_future_is_refused(database: Database) -> None:
    with pytest.raises(ConfigurationError, match="in the future"):
        await mark(database, since=datetime.now(UTC) + timedelta(minutes=1))
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(Restore)) == 0


async def test_new_uploads_are_looked_up_until_that_time_is_over(
    database: Database, alice: UserRow
) -> None:
    await mark(database)
    assert (await rows.row(database, await rows.put(database, alice))).maybe_sent
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE restores SET look_until = now()"))
    assert not (await rows.row(database, await rows.put(database, alice))).maybe_sent


async def test_a_claim_knows_whether_the_ledger_went_back_since_its_upload(
    database: Database, alice: UserRow
) -> None:
    before = await rows.put(database, alice)
    leased = await rows.put(database, alice)
    redriven = await rows.put(database, alice)
    await rows.claim(database, leased)
    await rows.bring_to(database, redriven, State.REFUSED)
    await mark(database)
    after = await rows.put(database, alice)
    # A redrive is a decision to send it.
    async with database.transaction() as connection:
        await dead_letters.redrive(connection, [redriven], settle_seconds=0, by=SYSTEM)
    accepted_at = {
        id_: leases.accepted_at(id_, (await rows.row(database, id_)).created_at)
        for id_ in (before, leased)
    }
    for id_ in (before, leased, redriven, after):
        await rows.bring_to(database, id_, State.QUEUED)
    claims = await rows.claim(database, before, leased, redriven, after)
    found = {claim.upload_id: claim.newer_since for claim in claims}
    assert found == {**accepted_at, redriven: None, after: None}


async def test_every_user_gets_another_sync_token(database: Database, alice: UserRow) -> None:
    async def token() -> Any:
        async with database.reading() as connection:
            return await connection.scalar(select(User.sync_token))

    first = await token()
    assert first == alice.sync_token
    await mark(database)
    assert await token() != first


async def test_new_uploads_wait_while_what_was_lost_may_be_on_its_way(
    database: Database, alice: UserRow
) -> None:
    await mark(database)
    row = await rows.row(database, await rows.put(database, alice))
    assert (row.next_attempt_at - row.created_at).total_seconds() == pytest.approx(120, abs=5)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE restores SET settled_at = now()"))
    row = await rows.row(database, await rows.put(database, alice))
    assert row.next_attempt_at == row.created_at


@pytest.mark.parametrize("in_doubt", [False, True])
async def test_what_was_in_doubt_before_the_restore_stays_so(
    database: Database, alice: UserRow, in_doubt: bool
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, State.QUEUED, maybe_sent=in_doubt)
    for _ in range(2):
        await mark(database)
        row = await rows.row(database, upload_id)
        assert (row.maybe_sent, row.maybe_lost) == (True, not in_doubt)


@pytest.mark.parametrize("in_doubt", [False, True])
@pytest.mark.parametrize("accepted", ["before the restore", "after it"])
async def test_a_later_version_is_in_doubt_for_the_same_reason_as_the_older_one(
    database: Database, alice: UserRow, accepted: str, in_doubt: bool
) -> None:
    older = await rows.put(database, alice, identity=b"i")
    await rows.bring_to(database, older, State.REFUSED, maybe_sent=in_doubt)
    if accepted == "before the restore":
        later = await rows.put(database, alice, identity=b"i")
        # As if its own mark were not there yet: the older one's alone decides.
        await mark(database)
        await rows.bring_to(
            database, later, State.QUEUED, maybe_sent=False, maybe_lost=False, restored=False
        )
    else:
        await mark(database)
        async with database.transaction() as connection:
            past = "UPDATE restores SET settled_at = now(), look_until = now()"
            await connection.execute(text(past))
        later = await rows.put(database, alice, identity=b"i")
    (claim,) = await rows.claim(database, later)
    assert (claim.maybe_sent, claim.maybe_lost) == (True, not in_doubt)


@pytest.mark.parametrize("since", [timedelta(minutes=2), timedelta(0), timedelta(days=300)])
async def test_whatever_time_is_given_no_older_version_goes_over_a_newer_one(
    relay: Relay, settings: Settings, upstream: SandboxServer, since: timedelta
) -> None:
    await factories.user(relay)
    first = await submit(relay, "one", 1)
    accepted_at = (await rows.row(relay.database, first.upload.id)).created_at
    # The ledger that was lost had delivered it, and a newer version.
    sent = await _sent_by_another(relay, upstream, [1, 2])
    assert sent == {"one": [1, 2]}
    await Restorer(relay.database, settings).mark(accepted_at - since, look_seconds=_DAY)
    await _settle(relay)
    await deliver(relay)
    assert stored(upstream) == sent
    assert await states(relay) == ["refused"]
    # The device sends its latest version again.
    await submit(relay, "one", 2)
    await _settle(relay)
    await deliver(relay)
    assert stored(upstream) == sent
    assert await states(relay) == ["delivered", "refused"]


async def test_only_what_cannot_be_looked_up_is_marked_after_a_restore(
    relay: Relay, settings: Settings, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    await submit(relay, "can-be-looked-up", 1)
    nameless = {name: value for name, value in factories.resource().items() if name != "id"}
    await relay.acceptor.accept("alice", parse(orjson.dumps(nameless), Labels(fhir_version="R4")))
    since = datetime.now(UTC)
    await Restorer(relay.database, settings).mark(since, look_seconds=_DAY)
    await submit(relay, "new", 3)
    await _settle(relay)
    await deliver(relay)
    assert upstream.counts()["total"]["versions"] == 3
    async with relay.database.transaction() as connection:
        found = await connection.execute(
            select(Upload.reason, Upload.possible_duplicate).order_by(Upload.id)
        )
        assert list(found) == [(None, False), (Reason.CANNOT_LOOK_UP, True), (None, False)]


async def _settle(relay: Relay) -> None:
    """The time passes in which what was under way arrives."""
    async with relay.database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET next_attempt_at = now() WHERE state = 'queued'")
        )


async def _sent_by_another(
    relay: Relay, upstream: SandboxServer, values: list[float]
) -> dict[str, list[float]]:
    """What another ledger delivered of the record `one`, one version after the other."""
    granted = upstream.grant("alice")
    async with httpx.AsyncClient(trust_env=False) as client:
        for value in values:
            body = factories.resource(id="one", valueQuantity={"value": value})
            target = "/one" if value > values[0] else ""
            response = await client.post(
                f"{upstream.fhir_url}/r4/Observation{target}",
                json=body,
                headers={"Authorization": f"Bearer {granted['access_token']}"},
            )
            response.raise_for_status()
    # The tokens that Uplift has are older, and as good as before.
    await relay.provisioner.bring_grant(
        "alice", TokenPair(granted["access_token"], granted["refresh_token"], 7200)
    )
    return stored(upstream)
