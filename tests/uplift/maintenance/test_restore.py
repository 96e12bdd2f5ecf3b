"""A ledger that went back in time: a real dump, a real restore, and nothing doubled upstream."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text

from tests import factories
from tests.uplift.ledger import rows
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.cli.local.embedded.postgres import _program
from uplift.errors import ConfigurationError
from uplift.intake.accept import Accepted
from uplift.ledger.audit import Action, list_events
from uplift.ledger.database import Database
from uplift.ledger.tables import Restore, Upload
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


def dump(settings: Settings, file: Path) -> None:
    """A backup, as docs/operations.md makes it."""
    assert settings.database_url is not None
    _run("pg_dump", "--format=custom", f"--file={file}", settings.database_url.get_secret_value())


def restore(file: Path, server: EmbeddedPostgres) -> None:
    _run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={server.url}", str(file))


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(_program(program)), *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


async def deliver(relay: Relay) -> None:
    """Work until nothing is due for a while."""
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
        await relay.deliverer.deliver([row.id for row in left if row.due])
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
    """Of each resource at 1upHealth, the values of its versions, in their order."""
    found: dict[str, list[float]] = {}
    for each in upstream.resources():
        versions = [orjson.loads(body) for body in upstream.stored_bytes(id=each["id"])]
        found[each["id"]] = [one["valueQuantity"]["value"] for one in versions]
    return found


async def submit(relay: Relay, name: str, value: float) -> Accepted:
    return await factories.accepted(relay, id=name, valueQuantity={"value": value})


async def test_after_a_restore_nothing_is_doubled_and_everything_ends_truly(
    relay: Relay,
    settings: Settings,
    upstream: SandboxServer,
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
    dump(settings, tmp_path / "backup")
    # After it: what was on its way is delivered, records change, new ones come. Then the ledger is
    # lost, and with it all knowledge of that.
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
        recovered = await Restorer(again.database, again.settings).recover(since, look_seconds=_DAY)
        assert (recovered.unfinished, recovered.ended, recovered.locked) == (3, 0, 0)
        assert (recovered.grants, recovered.brought) == (1, 0)

        await deliver(again)

        # What was there is found. What was never sent is sent. What is newer there is not
        # overwritten: a person sees it, or its device sends the newer version again.
        assert stored(upstream) == {**before, "never-sent": [1]}
        assert await states(again) == ["delivered"] * 4 + ["refused"]
        async with again.database.transaction() as connection:
            (refused,) = await connection.scalars(
                select(Upload.reason).where(Upload.state == State.REFUSED)
            )
        assert refused == Reason.NEWER_UPSTREAM

        # The device sends again what it is not told is delivered.
        for name, value in (("updated-later", 2), ("overtaken", 2), ("came-later", 1)):
            accepted = await submit(again, name, value)
            assert not accepted.duplicate
            assert accepted.upload.maybe_sent
        await deliver(again)

        assert stored(upstream) == {**before, "never-sent": [1]}
        assert await states(again) == ["delivered"] * 7 + ["refused"]
        # And then goes on as ever.
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
    await relay.deliverer.deliver(list(ids))


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring)


async def recover(database: Database, **how: Any) -> Any:
    settings = Settings(attempt_seconds=60, settle_seconds=60)
    since = how.pop("since", datetime.now(UTC) - timedelta(hours=1))
    return await Restorer(database, settings).recover(since, look_seconds=_DAY, **how)


@pytest.mark.parametrize(
    ("state", "marked"),
    [
        (State.QUEUED, True),
        (State.PARKED, True),
        (State.REJECTED, True),
        (State.REFUSED, True),
        (State.EXPIRED, True),
        (State.SENDING, False),  # its claim did
        (State.DELIVERED, False),
        (State.CANCELLED, False),
        (State.SUPERSEDED, False),
    ],
)
async def test_what_could_be_sent_again_is_marked(
    database: Database, alice: UserRow, state: State, marked: bool
) -> None:
    upload_id = await rows.put(database, alice)
    await rows.bring_to(database, upload_id, state, empty_searches=1)
    before = await rows.row(database, upload_id)

    done = await recover(database)

    row = await rows.row(database, upload_id)
    assert row.maybe_sent is marked
    assert row.empty_searches == (0 if marked else 1)
    assert row.state == before.state
    assert done.unfinished + done.ended == int(marked)
    if state is State.QUEUED:
        assert row.reason == Reason.RESTORED
        # An attempt of the former ledger may have been on its way; then 1upHealth has its time.
        waits = (row.next_attempt_at - before.next_attempt_at).total_seconds()
        assert 119 < waits < 130


async def test_it_may_be_run_again_and_is_audited_each_time(
    database: Database, alice: UserRow
) -> None:
    ids = [await rows.put(database, alice) for _ in range(3)]
    since = datetime.now(UTC) - timedelta(minutes=5)
    first = await recover(database, since=since)
    second = await recover(database, since=since)
    assert (first.unfinished, second.unfinished) == (3, 3)
    assert second.look_until > first.look_until
    assert all([(await rows.row(database, id_)).maybe_sent for id_ in ids])
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(Restore)) == 1
        events = await list_events(connection)
    assert [each.action for each in events].count(Action.RESTORED) == 2


async def test_what_is_in_other_hands_is_told(database: Database, alice: UserRow) -> None:
    held, free = await rows.put(database, alice), await rows.put(database, alice)
    async with database.transaction() as other:
        await other.execute(select(Upload.id).where(Upload.id == held).with_for_update())
        done = await recover(database)
    assert (done.unfinished, done.locked) == (1, 1)
    assert (await rows.row(database, free)).maybe_sent
    assert (await recover(database)).locked == 0


async def test_a_time_to_come_is_refused(database: Database) -> None:
    with pytest.raises(ConfigurationError, match="yet to come"):
        await recover(database, since=datetime.now(UTC) + timedelta(minutes=1))
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(Restore)) == 0


async def test_new_uploads_are_looked_up_until_its_time_is_over(
    database: Database, alice: UserRow
) -> None:
    await recover(database)
    assert (await rows.row(database, await rows.put(database, alice))).maybe_sent
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE restores SET look_until = now()"))
    assert not (await rows.row(database, await rows.put(database, alice))).maybe_sent


async def test_a_claim_knows_the_restore_that_came_after_its_upload_alone(
    database: Database, alice: UserRow
) -> None:
    upload_id = await rows.put(database, alice)
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO restores (since, look_until) VALUES"
                " (now() - interval '1 hour', now()), (now(), now())"
            )
        )
        restored_to = await connection.scalar(select(func.max(Restore.since)))
    (claim,) = await rows.claim(database, upload_id)
    assert claim.restored_to == restored_to
    # Who asks for it to be sent all the same is believed.
    redriven = await rows.put(database, alice)
    await rows.bring_to(
        database, redriven, State.QUEUED, reason=Reason.REDRIVEN,
        created_at=text("now() - interval '30 minutes'"),
    )  # fmt: skip
    (claim,) = await rows.claim(database, redriven)
    assert claim.restored_to is None
