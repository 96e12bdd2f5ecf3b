"""`docs/operations.md` names commands, settings, processes and alerts that exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from uplift.cli.main import COMMANDS, app
from uplift.settings import Settings

_ROOT = Path(__file__).parents[4]
PAGE = (_ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

_ANY_ID = "01a20a74-4eaf-75ff-a5d7-3948dacfbc70"
_BLOCK = re.compile(r"^ *```\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


def commands() -> list[str]:
    """Each `uplift …` of the page, in a block or in a sentence, from that word on."""
    lines = [line for block in _BLOCK.findall(PAGE) for line in block.splitlines()]
    lines += _INLINE.findall(_BLOCK.sub("", PAGE))
    found = [
        line[match.start(1) :]
        for line in lines
        if (match := re.search(r"(?:^|\s)(uplift(?: [a-z-]+| …)\b.*)$", line))
        and not re.search(r"--(username|dbname|output)\S* ?uplift|ROLE uplift|xdb uplift", line)
    ]
    return sorted({command for command in found if "…" not in command.split()[1:2]})


def trouble_with(command: str) -> str | None:
    """What the command line would say to it, or None if it would begin."""
    here: Any = typer.main.get_command(app)
    words = shlex.split(command.replace("…", "2026-11-23"))[1:]
    words = [_ANY_ID if word == "ID" else word for word in words]
    # A file that somebody has by then.
    words = [__file__ if word.endswith(".zip") else word for word in words]
    if words and words[0] in COMMANDS:
        name = words.pop(0)
        here = COMMANDS[name].load(name)
    if words and words[0] in getattr(here, "commands", {}):
        here = here.commands[words.pop(0)]
    if hasattr(here, "commands") and not here.invoke_without_command:
        return f"{words} is no command"
    if not words:
        return None  # the command by its name
    try:
        here.make_context(here.name, words)
    except Exception as error:  # noqa: BLE001  typer has a click of its own, with errors of its own
        return str(error) or type(error).__name__
    return None


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 25
    assert any(command.startswith("uplift restore --since") for command in commands())


@pytest.mark.parametrize("command", commands())
def test_a_command_exists_with_its_options(command: str) -> None:
    assert trouble_with(command) is None


@pytest.mark.parametrize(
    "command",
    [
        "uplift redrive",
        "uplift uploads mend",
        "uplift pause --everybody",
        "uplift x",
        "uplift uploads list --status broken",
        "uplift keys revoke x",
    ],
)
def test_one_that_does_not_exist_is_found(command: str) -> None:
    assert trouble_with(command) is not None


def test_every_setting_that_it_names_exists() -> None:
    named = set(re.findall(r"\bUPLIFT_([A-Z_]+)\b", PAGE))
    assert named
    assert {name.removesuffix("_FILE").lower() for name in named} <= set(Settings.model_fields)


def test_every_alert_has_its_section_and_no_other_is_there() -> None:
    rules = yaml.safe_load((_ROOT / "ops/prometheus/alerts.yml").read_text(encoding="utf-8"))
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    sections = re.findall(r"^### (Uplift\w+)$", PAGE, re.MULTILINE)
    assert sorted(sections) == sorted(alerts)


def test_every_migration_has_its_line() -> None:
    versions = _ROOT / "uplift/ledger/migrations/versions"
    there = {file.name[:4] for file in versions.glob("0*.py")}
    assert set(re.findall(r"^\| (\d{4}) \|", PAGE, re.MULTILINE)) == there


def test_links_into_the_page_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
