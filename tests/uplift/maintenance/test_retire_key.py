"""A master key is retired when neither the ledger nor a kept backup needs it."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from uplift.errors import KeyNeeded
from uplift.key_source import read_folder
from uplift.ledger import audit, erasing, master_keys, users
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database
from uplift.maintenance.retire_key import retire_key
from uplift.maintenance.rotate_keys import Rotator
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.users.erase import Eraser

pytestmark = pytest.mark.usefixtures("no_users_left")

OLD, NEW = KeyRing.new_entry("old"), KeyRing.new_entry("new")
BEFORE, PROMOTED = KeyRing.parse(f"{OLD},{NEW}"), KeyRing.parse(f"{NEW},{OLD}")
_WHO = Actor("cli:somebody")


async def retire(
    database: Database, key_id: str, *, kept: float | None, folder: Path | None = None
) -> Path | None:
    settings = Settings(backups_kept_days=kept, master_keys_dir=folder)
    return await retire_key(database, settings, PROMOTED, key_id, by=_WHO)


async def age(database: Database, days: float) -> None:
    """Let so many days pass."""
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE master_keys SET needed_at = needed_at - make_interval(days => :days)"),
            {"days": days},
        )


async def test_a_former_key_is_retired_when_the_last_backup_that_needs_it_is_gone(
    database: Database,
) -> None:
    async with database.transaction() as connection:
        await users.add_user(connection, "alice", BEFORE)
    with pytest.raises(KeyNeeded, match="old still wraps data keys"):
        await retire(database, "old", kept=35)
    assert (await Rotator(database, PROMOTED).rotate()).complete
    with pytest.raises(KeyNeeded, match="UPLIFT_BACKUPS_KEPT_DAYS is not set"):
        await retire(database, "old", kept=None)
    with pytest.raises(KeyNeeded, match=r"Backups from before .* need old"):
        await retire(database, "old", kept=35)
    await age(database, 36)
    with pytest.raises(KeyNeeded, match="new is in use"):
        await retire(database, "new", kept=35)
    assert await retire(database, "old", kept=35) is None
    async with database.transaction() as connection:
        lives = await master_keys.key_lives(connection)
        event = (await audit.list_events(connection))[-1]
    assert lives["old"].retired_at is not None
    assert (event.action, event.actor) == ("key_retired", _WHO)


async def test_a_user_who_is_erased_was_in_a_backup_until_then(database: Database) -> None:
    async with database.transaction() as connection:
        await users.add_user(connection, "alice", BEFORE)
        await master_keys.note_keys(connection, BEFORE.ids, BEFORE.current)
    await age(database, 100)
    async with database.transaction() as connection:
        assert await erasing.begin(connection, "alice", SYSTEM)
    with pytest.raises(KeyNeeded, match="Backups from before"):
        await retire(database, "old", kept=35)


async def test_in_a_folder_the_file_of_a_retired_key_is_destroyed(
    database: Database, tmp_path: Path
) -> None:
    for entry in (OLD, NEW):
        name, _, key = entry.partition(":")
        (tmp_path / name).write_text(key)
    (tmp_path / "in_use").write_text("new")
    async with database.transaction() as connection:
        await master_keys.note_keys(connection, PROMOTED.ids, PROMOTED.current)
    await age(database, 36)
    assert await retire(database, "old", kept=35, folder=tmp_path) == tmp_path / "old"
    assert read_folder(tmp_path).ids == ("new",)


async def test_a_key_that_nobody_has_seen_is_not_retired(database: Database) -> None:
    with pytest.raises(KeyNeeded, match="Nobody has seen a master key 'other'"):
        await retire(database, "other", kept=35)


async def test_erasing_names_the_date_by_which_backups_are_unreadable(database: Database) -> None:
    async with database.transaction() as connection:
        await master_keys.note_keys(connection, PROMOTED.ids, PROMOTED.current)
        now, since = await master_keys.in_use_since(connection, "new")
    assert since == now
    for kept, expected in ((35.0, now + timedelta(days=90 + 35)), (None, None)):
        async with database.transaction() as connection:
            await users.add_user(connection, "alice", PROMOTED)
        eraser = Eraser(database, PROMOTED, Settings(backups_kept_days=kept))
        erasure = await eraser.erase("alice", wait=5)
        assert (erasure.done, erasure.unreadable_by) == (True, expected)
