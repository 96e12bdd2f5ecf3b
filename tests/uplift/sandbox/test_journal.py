"""What a sandbox keeps over its end, and that nobody reads it without the key."""

import secrets
import stat
from pathlib import Path

import httpx
import pytest

from tests.uplift.sandbox.conftest import Client, observation
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.journal import Journal, UnreadableJournalError
from uplift.sandbox.testing import SandboxServer

KEY = secrets.token_hex(32)


def kept_in(path: Path) -> SandboxConfig:
    return SandboxConfig(state_file=path, state_key=KEY, like="oneup-recorded")


def refresh(sandbox: SandboxServer, token: str) -> httpx.Response:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": token,
        "client_id": sandbox.config.client_id,
        "client_secret": sandbox.config.client_secret,
    }
    return httpx.post(sandbox.token_url, data=form, trust_env=False)


def test_users_tokens_and_resources_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with SandboxServer(kept_in(path)) as sandbox:
        alice = Client(sandbox, "alice")
        alice.create({"resourceType": "Patient", "id": "p"})
        stored = alice.create(observation("own", subject={"reference": "Patient/p"})).json()
        address = f"/r4/Observation/{stored['id']}"
        updated = alice.http.post(address, json=observation("own", status="amended")).json()
        first = alice.grant["refresh_token"]
        second = refresh(sandbox, first).json()
        shown = sandbox.resources()
        alice.close()

    with SandboxServer(kept_in(path)) as sandbox:
        assert sandbox.resources() == shown
        headers = {"Authorization": f"Bearer {second['access_token']}"}
        read = httpx.get(f"{sandbox.url}{address}", headers=headers, trust_env=False)
        assert read.json() == updated
        assert refresh(sandbox, first).status_code == 400
        assert refresh(sandbox, second["refresh_token"]).status_code == 200
        assert str(sandbox.grant("alice")["oneup_user_id"]) == str(alice.user)
        sandbox.reset()

    with SandboxServer(kept_in(path)) as sandbox:
        assert sandbox.resources() == []


def test_the_file_is_for_its_owner_and_reads_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with SandboxServer(kept_in(path)) as sandbox:
        alice = Client(sandbox, "alice")
        alice.create(observation("own", note=[{"text": "the text of a note"}]))
        alice.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    for text in (b"alice", b"the text", alice.grant["refresh_token"].encode(), b"Observation"):
        assert text not in content


def test_an_unfinished_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "state"
    journal = Journal(path, KEY)
    journal.append({"a": 1})
    journal.append({"b": 2})
    path.write_bytes(path.read_bytes()[:-5])
    again = Journal(path, KEY)
    assert list(again.read()) == [{"a": 1}]
    again.append({"c": 3})
    assert list(again.read()) == [{"a": 1}, {"c": 3}]


@pytest.mark.parametrize("key", ["0" * 64, "", "00", "not hexadecimal"])
def test_another_key_does_not_open_it(tmp_path: Path, key: str) -> None:
    path = tmp_path / "state"
    Journal(path, KEY).append({"a": 1})
    with pytest.raises(UnreadableJournalError):
        list(Journal(path, key).read())


def test_a_damaged_line_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"rubbish\n")
    with pytest.raises(UnreadableJournalError):
        list(Journal(path, KEY).read())
