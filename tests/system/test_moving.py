"""docs/moving.md: 20 people move from 1upHealth to a server like HAPI, by the page's commands."""

import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories import resource
from tests.held import held_by
from tests.ledger_copies import LedgerCopies
from tests.system.conftest import BRISK, Running
from tests.system.pages import ROOT, SHELLS, run_page
from uplift.cli.local.system import System
from uplift.destinations.derived_ids import new_id_key
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None, reason="bare machine: curl is not here"
)

_PEOPLE = [f"person-{number}" for number in range(1, 21)]
_RECORDS = 1
_THERE = "https://fhir.example.org/fhir"


class App:
    """An app of one person, as the page wants it: it remembers the sync token."""

    def __init__(self, running: Running, name: str) -> None:
        self._running, self._name = running, name
        self._token = ""

    def sync(self) -> bool:
        """Send everything if the token is another one; whether it was."""
        url = f"/v1/users/{self._name}/summary"
        token = self._running.api.get(url).raise_for_status().json()["syncToken"]
        if token == self._token:
            return False
        for number in range(_RECORDS):
            self._running.api.post(
                "/v1/uploads",
                params={"user": self._name, "fhirVersion": "R4", "source": "hospital"},
                json=resource(id=f"{self._name}-{number}"),
            ).raise_for_status()
        self._token = token
        return True


@pytest.fixture
def hapi() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(like="hapi")) as server:
        yield server


@pytest.fixture
def oneup() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(client_secret=secrets.token_urlsafe(8))) as server:
        yield server


@pytest.fixture
def both(
    tmp_path: Path, ledger_copies: LedgerCopies, hapi: SandboxServer, oneup: SandboxServer
) -> Iterator[Running]:
    """A system with both destinations, by the page's own file."""
    file = tmp_path / "destinations.toml"
    (toml,) = [text for text in blocks("toml") if "[hapi]" in text]
    file.write_text(toml.replace(_THERE, f"{hapi.url}/r4"))
    settings = {
        **BRISK,
        "UPLIFT_DESTINATIONS_FILE": str(file),
        "UPLIFT_DESTINATION": "oneup",
        "UPLIFT_ID_KEY": new_id_key(),
        "UPLIFT_ONEUP_FHIR_URL": oneup.fhir_url,
        "UPLIFT_ONEUP_TOKEN_URL": oneup.token_url,
        "UPLIFT_ONEUP_USERS_URL": oneup.users_url,
        "UPLIFT_ONEUP_CLIENT_ID": oneup.config.client_id,
        "UPLIFT_ONEUP_CLIENT_SECRET": oneup.config.client_secret,
    }
    data = ledger_copies.put(tmp_path / "data")
    processes = ("api", "worker", "bulk", "beat")
    with System(data, settings, processes=processes, any_port=True) as system:
        system.sandbox_url, system.sandbox_token = oneup.url, oneup.config.control_token
        running = Running(system, data)
        yield running
        running.close()


def blocks(language: str) -> list[str]:
    """The page's blocks in that language."""
    page = (ROOT / "docs" / "moving.md").read_text(encoding="utf-8")
    parts = page.split("```")[1::2]
    return [part.removeprefix(language) for part in parts if part.startswith(f"{language}\n")]


def arrive(running: Running) -> None:
    """Until everything of everybody is delivered."""
    for name in _PEOPLE:
        summary: dict[str, object] = {}
        for _ in range(600):
            url = f"/v1/users/{name}/summary"
            summary = running.api.get(url).raise_for_status().json()
            if summary["complete"]:
                break
            time.sleep(0.1)
        assert summary["complete"], summary


@pytest.mark.timeout(300)  # seconds, for a machine that does much else
def test_twenty_people_move_by_the_commands_of_the_page(
    both: Running, hapi: SandboxServer, tmp_path: Path
) -> None:
    apps = [App(both, name) for name in _PEOPLE]
    for name, app in zip(_PEOPLE, apps, strict=True):
        both.add_user(name)
        assert app.sync()
        assert not app.sync()
    arrive(both)
    assert both.sandbox.counts()["total"]["resources"] == _RECORDS * len(_PEOPLE)
    (tmp_path / "people.txt").write_text("".join(f"{name}\n" for name in _PEOPLE))
    folder = tmp_path

    # The page keeps its key in the environment, as docs/api.md does.
    both.system.environment["UPLIFT_API_KEY"] = both.key
    before, after = blocks("sh")[:-1], blocks("sh")[-1:]
    run_page(SHELLS["bash"], before, both, folder)
    assert [app.sync() for app in apps[:-1]] == [True] * (len(apps) - 1)
    arrive(both)
    run_page(SHELLS["bash"], after, both, folder)
    assert (folder / "waiting.txt").read_text().split() == _PEOPLE[-1:], "who has not synced yet"

    assert apps[-1].sync()
    arrive(both)
    there = held_by(f"{hapi.url}/r4", {"Observation", "Patient"}, {})
    kinds = [each["resourceType"] for each in there]
    assert kinds.count("Observation") == _RECORDS * len(_PEOPLE)
    assert kinds.count("Patient") == len(_PEOPLE)
    assert {each["meta"]["versionId"] for each in there} == {"1"}
    counted = both.sandbox.counts()["total"]
    assert counted["resources"] == counted["versions"] == _RECORDS * len(_PEOPLE)
