"""clients/python/examples: the programs as a user runs them, with what can go wrong."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests import factories
from tests.system.conftest import Running
from tests.wide.recording_proxy import recorded

_CLIENT = Path(__file__).parents[2] / "clients" / "python"
_EXAMPLES = sorted((_CLIENT / "examples").glob("*.py"))
_SECONDS = 60


def _run(
    running: Running, folder: Path, program: str, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, _CLIENT / "examples" / program, *words],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(_CLIENT),
            "UPLIFT_API_URL": running.system.api_url,
            "UPLIFT_API_KEY": running.key,
            "UPLIFT_SANDBOX_URL": running.system.sandbox_url or "",
            "UPLIFT_SANDBOX_TOKEN": running.system.sandbox_token,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )


def _file(folder: Path, **elements: Any) -> str:
    name = f"{uuid4()}.json"
    (folder / name).write_text(json.dumps(factories.resource(**elements)))
    return name


@pytest.fixture
def person(running: Running) -> str:
    """Somebody whom nobody knows yet."""
    running.sandbox.clear_faults()
    return f"example-{uuid4()}"


def _outbox(folder: Path) -> list[tuple[str, str, bytes, str, str]]:
    database = sqlite3.connect(folder / "outbox.db")
    try:
        return database.execute("SELECT key, person, body, upload, status FROM outbox").fetchall()
    finally:
        database.close()


@pytest.mark.parametrize("example", _EXAMPLES, ids=lambda file: file.name)
def test_an_example_has_at_most_60_lines(example: Path) -> None:
    lines = [line for line in example.read_text(encoding="utf-8").splitlines() if line]
    assert len(lines) <= 60


def test_the_backend_sends_all_the_same_after_401_409_422_429_and_503(
    running: Running, person: str, tmp_path: Path
) -> None:
    parked, unconnected = f"{person}-parked", f"{person}-unconnected"
    running.add_user(parked)
    running.sandbox.grant(unconnected)
    running.sandbox.faults(
        *({"kind": "end_consent", "match": {"user": each}} for each in (parked, unconnected))
    )
    (tmp_path / "wrong.json").write_text("{}")
    for each, *others in ((person, "wrong.json"), (parked,), (unconnected,)):
        files = (_file(tmp_path, id=str(uuid4())), *others)
        assert _run(running, tmp_path, "backend.py", "add", each, "R4", *files).returncode == 0

    refused = _run(running, tmp_path, "backend.py", "run", UPLIFT_API_KEY="unknown")
    assert refused.returncode == 1
    assert "401" in refused.stderr
    assert "uplift keys add" in refused.stderr

    # Another record goes out under the key of the first one.
    before = _outbox(tmp_path)
    running.add_user(person)
    running.api.post(
        f"/v1/uploads?user={person}&fhirVersion=R4",
        json=factories.resource(id=str(uuid4())),
        headers={"Idempotency-Key": before[0][0]},
    ).raise_for_status()
    with recorded(running.system.api_url, busy=[429, 503]) as proxy:
        done = _run(running, tmp_path, "backend.py", "run", UPLIFT_API_URL=proxy.url)
    running.sandbox.clear_faults()

    assert done.returncode == 0, done.stderr
    after = _outbox(tmp_path)
    assert [row[4] for row in after] == ["delivered", "not_a_resource", "delivered", "delivered"]
    assert [each.split(":")[0] for each in done.stderr.splitlines()] == ["429", "503"]
    assert after[0][0] != before[0][0]
    assert after[2][0] == before[2][0]
    # Both persons authorised again, and gave their grants to the backend.
    for each, origin in (
        (person, "user_management"),
        (parked, "backend"),
        (unconnected, "backend"),
    ):
        assert running.api.get(f"/v1/users/{each}").json()["grantOrigin"] == origin
    for _, _, body, upload_id, _ in (after[0], *after[2:]):
        assert running.api.get(f"/v1/uploads/{upload_id}").json()["final"]
        assert running.sandbox.stored_bytes(id=json.loads(body)["id"]) == [body]


def test_the_phone_gets_a_new_device_token_when_its_own_is_over(
    running: Running, person: str, tmp_path: Path
) -> None:
    def send() -> str:
        file = _file(tmp_path, id=str(uuid4()))
        done = _run(running, tmp_path, "device_token.py", "send", person, "R4", file)
        assert done.stdout == f"{file} delivered\n", done.stderr
        return (tmp_path / "device-token").read_text()

    first = send()
    assert send() == first
    assert (tmp_path / "device-token").stat().st_mode & 0o077 == 0
    signed_out = _run(running, tmp_path, "device_token.py", "sign-out", person)
    assert signed_out.returncode == 0, signed_out.stderr
    tokens = running.api.get(f"/v1/users/{person}/device-tokens").json()["deviceTokens"]
    assert tokens == []
    assert send() != first
