"""The key ring of a folder, which running processes follow."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from uplift.errors import ConfigurationError
from uplift.key_source import follow_folder, read_folder, read_key_ring
from uplift.ledger import user_keys, users
from uplift.ledger.database import Database
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import open_relay

A, B = KeyRing.new_entry("a"), KeyRing.new_entry("b")


def put(folder: Path, entry: str) -> None:
    name, _, key = entry.partition(":")
    (folder / name).write_text(f"{key}\n")


def use(folder: Path, name: str) -> None:
    (folder / ".new").write_text(f"{name}\n")
    (folder / ".new").rename(folder / "in_use")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the key `a`, in use."""
    keys = tmp_path / "keys"
    keys.mkdir()
    put(keys, A)
    use(keys, "a")
    return keys


def test_the_key_in_use_is_the_one_that_the_folder_names(folder: Path) -> None:
    put(folder, B)
    (folder / "..data").mkdir()
    assert read_folder(folder).ids == ("a", "b")
    use(folder, "b")
    assert read_folder(folder).ids == ("b", "a")


def damage(name: str, text: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "in_use").unlink(), "in_use"),
        (damage("in_use", b"other"), "in_use"),
        (damage("b", b"canary"), "'b' is not the base64"),
        (damage("b", b"\xff\xfe"), "'b' is not text"),
        (lambda folder: (folder / "a").unlink(), "in_use"),
    ],
)
def test_what_is_wrong_in_a_folder_is_said_without_what_a_file_holds(
    folder: Path, change: Callable[[Path], object], said: str
) -> None:
    change(folder)
    with pytest.raises(ConfigurationError, match=said) as raised:
        read_folder(folder)
    assert "canary" not in str(raised.value)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_folder(tmp_path / "none")


def test_a_folder_and_a_setting_at_once_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="both set"):
        read_key_ring(Settings(master_keys=SecretStr(A), master_keys_dir=folder))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  a folder tells nobody
            await asyncio.sleep(0.01)


async def test_a_key_ring_follows_its_folder_and_keeps_what_it_has_of_a_damaged_one(
    folder: Path,
) -> None:
    key_ring = read_folder(folder)
    following = asyncio.create_task(follow_folder(folder, key_ring, seconds=0.01))
    with capture_logs() as logs:
        put(folder, B)
        await until(lambda: key_ring.ids == ("a", "b"))
        use(folder, "b")
        await until(lambda: key_ring.current == "b")
        use(folder, "nobody")
        await until(lambda: any(entry["event"] == "key_ring_not_read" for entry in logs))
        assert key_ring.ids == ("b", "a")
        use(folder, "b")
        (folder / "a").unlink()
        await until(lambda: key_ring.ids == ("b",))
    following.cancel()
    said = [entry for entry in logs if entry["event"] == "key_ring_not_read"]
    assert len(said) == 1


@pytest.mark.usefixtures("no_users_left")
async def test_a_running_relay_wraps_with_a_new_key_without_a_restart(
    database: Database, settings: Settings, folder: Path
) -> None:
    own = settings.model_copy(update={"master_keys": None, "master_keys_dir": folder})
    async with open_relay(own) as relay:
        put(folder, B)
        use(folder, "b")
        await until(lambda: relay.key_ring.current == "b")
        async with database.transaction() as connection:
            await users.add_user(connection, "alice", relay.key_ring)
            assert await user_keys.count_by_master_key(connection) == {"b": 1}
