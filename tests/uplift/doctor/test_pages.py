"""Each page of docs/destinations, followed word by word against what the sandbox is like.

What the page says to start is started, its settings are set, and doctor is asked with --write.
"""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.keys import ID_KEY
from uplift.destinations.configured import configured_destinations
from uplift.doctor import logins, servers
from uplift.doctor.findings import Finding, Verdict
from uplift.sandbox.command import read_options
from uplift.sandbox.servers.assertions import write_account
from uplift.sandbox.servers.profiles import PROFILES
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings

PAGES = Path(__file__).parents[3] / "docs" / "destinations"
SECTIONS = (
    "What to create there",
    "Settings",
    "What it costs",
)
BASE = "http://127.0.0.1:8090"


def blocks(page: str, heading: str) -> list[str]:
    """The shell blocks below a heading."""
    _, found, rest = page.partition(f"\n## {heading}\n")
    assert found, heading
    return re.findall(r"```sh\n(.*?)```", rest.partition("\n## ")[0], re.DOTALL)


def variables(block: str) -> dict[str, str]:
    """The settings of a block, as a shell reads them."""
    words = shlex.split(block, comments=True)
    return dict(word.split("=", 1) for word in words)


def stand_in(name: str) -> tuple[str, dict[str, str]]:
    """What a page says to start, and with which settings."""
    page = (PAGES / f"{name}.md").read_text()
    heading = "Without a server" if name == "hapi" else "Without an account"
    command, settings = blocks(page, heading)
    return command, variables(settings)


@contextmanager
def followed(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> Iterator[Settings]:
    """A running stand-in, and the settings of a deployment that follows the page."""
    command, given = stand_in(name)
    monkeypatch.chdir(folder)
    words = shlex.split(command, comments=True)
    assert words[:2] == ["uplift", "sandbox"]
    _, _, config = read_options(words[2:])
    with SandboxServer(config) as server:
        if config.service_account is not None:
            write_account(config.service_account, server.token_url)
        for variable, value in given.items():
            monkeypatch.setenv(variable, value.replace(BASE, server.url))
        monkeypatch.setenv("UPLIFT_ID_KEY", ID_KEY)
        yield Settings(
            redis_url=settings.redis_url, master_keys=settings.master_keys, oneup_client_id=""
        )


@pytest.mark.parametrize("name", sorted(PROFILES))
async def test_a_page_leads_to_a_doctor_who_finds_nothing_to_fail(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    with followed(name, tmp_path, monkeypatch, settings) as chosen:
        assert list(configured_destinations(chosen)) == [name]
        found: list[Finding] = [
            *await logins.ask(chosen),
            *await servers.ask(chosen, write=True),
        ]
    failed = [each for each in found if each.verdict is Verdict.FAIL]
    assert failed == []
    assert any("it is made" in each.what for each in found)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_page_has_each_part_and_settings_that_are_known(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (PAGES / f"{name}.md").read_text()
    for heading in SECTIONS:
        assert f"\n## {heading}" in page
    (shown, *_) = blocks(page, "Settings")
    for variable, value in variables(shown).items():
        if variable.endswith("_SECRET_FILE"):
            secret = tmp_path / "secret"
            secret.write_text("s")
            value = str(secret)
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("UPLIFT_ID_KEY", ID_KEY)
    made = configured_destinations(Settings(oneup_client_id=""))[name]
    assert made.bases
