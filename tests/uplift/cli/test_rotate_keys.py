"""`uplift rotate-keys` as a process: killed half-way, run again, and refused with wrong keys."""

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from uplift.cli.local.child_process import ChildProcess
from uplift.cli.local.system import command
from uplift.ledger import audit, user_keys, users
from uplift.ledger.audit import Action
from uplift.ledger.database import Database
from uplift.ledger.tables import User
from uplift.ledger.users import UserRow
from uplift.sealing import KeyRing

pytestmark = pytest.mark.usefixtures("no_users_left")

OLD, NEW = KeyRing.new_entry("old"), KeyRing.new_entry("new")
COMMAND = command("rotate-keys")


def environment(url: str, keys: str) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("UPLIFT_")}
    return {**bare, "UPLIFT_DATABASE_URL": url, "UPLIFT_MASTER_KEYS": keys}


async def rotate_keys(url: str, keys: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(
        subprocess.run,
        COMMAND,
        env=environment(url, keys),
        capture_output=True,
        text=True,
        timeout=60,
    )


async def add_users(database: Database, count: int) -> list[UserRow]:
    key_ring = KeyRing.parse(OLD)
    async with database.transaction() as connection:
        return [
            await users.add_user(connection, f"user-{number}", key_ring) for number in range(count)
        ]


async def counts(database: Database) -> dict[str, int]:
    async with database.transaction() as connection:
        return await user_keys.count_by_master_key(connection)


async def test_it_moves_everybody_and_says_how_many(database: Database, migrated: str) -> None:
    await add_users(database, 120)

    done = await rotate_keys(migrated, f"{NEW},{OLD}")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "120 user(s) moved to the master key new.\n"
    assert await counts(database) == {"new": 120}
    async with database.transaction() as connection:
        noted = [
            event.actor.partition(":")[0]
            for event in await audit.list_events(connection)
            if event.action == Action.KEYS_ROTATED
        ]
    assert noted == ["cli"]


async def test_killed_half_way_it_goes_on_and_corrupts_nobody(
    database: Database, migrated: str, tmp_path: Path
) -> None:
    added = await add_users(database, 250)
    keys = f"{NEW},{OLD}"
    process = ChildProcess(
        "rotate-keys", COMMAND, log=tmp_path / "log", env=environment(migrated, keys)
    )
    # Half of them are in another transaction's hands, so that it is certain to be half-way.
    async with database.transaction() as held:
        await held.execute(
            select(User.id).where(User.id.in_([user.id for user in added[125:]])).with_for_update()
        )
        process.start()
        until = time.monotonic() + 30
        while await counts(database) != {"new": 125, "old": 125}:
            assert process.running, process.tail()
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        assert process.running
        process.kill()

    assert await counts(database) == {"new": 125, "old": 125}
    done = await rotate_keys(migrated, keys)

    assert (done.returncode, done.stdout) == (0, "125 user(s) moved to the master key new.\n")
    retired = KeyRing.parse(NEW)
    async with database.transaction() as connection:
        for user in added:
            found = await users.get_user(connection, user.id)
            assert found is not None
            assert found.key(retired).identity_key == user.key(KeyRing.parse(OLD)).identity_key


async def test_it_does_not_start_without_the_key_that_is_in_use(
    database: Database, migrated: str
) -> None:
    await add_users(database, 3)

    done = await rotate_keys(migrated, NEW)

    assert done.returncode == 2
    assert "does not hold the master key 'old'" in done.stderr
    assert "3 user(s)" in done.stderr
    assert "Put it back" in done.stderr
    assert NEW.partition(":")[2] not in done.stdout + done.stderr
    assert await counts(database) == {"old": 3}


async def test_whoever_is_left_is_counted_and_the_exit_code_says_so(
    database: Database, migrated: str
) -> None:
    added = await add_users(database, 4)

    async with database.transaction() as held:
        await held.execute(select(User.id).where(User.id == added[0].id).with_for_update())
        done = await rotate_keys(migrated, f"{NEW},{OLD}")

    assert done.returncode == 1
    assert done.stdout == "3 user(s) moved to the master key new.\n"
    assert "1 user(s) are left under the master key old." in done.stderr
    assert "run this again" in done.stderr
