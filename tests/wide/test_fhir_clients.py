"""Other people's FHIR clients page through what Uplift reads back."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests import factories
from tests.system.conftest import Running
from tests.wide.programs import NPM, TOOLS, npm_tools

_HERE = Path(__file__).parent
_COUNT = 13
_SECONDS = 60


@pytest.fixture(scope="module")
def records(running: Running) -> list[dict[str, Any]]:
    """What was delivered of alice."""
    running.add_user("alice")
    records = [factories.resource(id=f"obs-{number:02}") for number in range(_COUNT)]
    for each in records:
        running.api.post(
            "/v1/uploads", params={"user": "alice", "fhirVersion": "R4"}, json=each
        ).raise_for_status()
    ends = time.monotonic() + _SECONDS
    while len(running.sandbox.resources()) < _COUNT:
        assert time.monotonic() < ends, "not all are delivered"
        time.sleep(0.2)
    return records


_CLIENTS: dict[str, tuple[str | Path, Path]] = {
    "fhirclient for Python": (TOOLS / "python", _HERE / "read_with_fhirclient.py"),
    "fhir-kit-client": ("node", NPM / "fhir_kit_client.mjs"),
    "fhirclient for JavaScript": ("node", NPM / "smart_client.cjs"),
}


@pytest.mark.parametrize("name", _CLIENTS)
def test_a_fhir_client_reads_everything_back(
    running: Running, records: list[dict[str, Any]], name: str
) -> None:
    if "Python" not in name:
        npm_tools()
    base = f"{running.system.api_url}/v1/users/alice/fhir/R4"
    done = subprocess.run(
        [*_CLIENTS[name], base, running.key], capture_output=True, text=True, timeout=_SECONDS
    )
    assert done.returncode == 0, done.stderr
    found = [{**each, "meta": None} for each in json.loads(done.stdout)]
    assert sorted(found, key=lambda each: str(each["id"])) == [
        {**each, "meta": None} for each in records
    ]
