"""The command line as a whole: help without imports, completion, and lines that stay true."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from uplift.cli.local.system import command
from uplift.cli.main import COMMANDS, app

# What no command needs for a line of help; together they take most of a second to import.
HEAVY = {
    "aiohttp",
    "alembic",
    "celery",
    "fastapi",
    "fhir",
    "httpx",
    "pydantic_settings",
    "sqlalchemy",
}
MODULES = """
import sys
from uplift.cli.main import app
try:
    app(sys.argv[1:])
finally:
    print("imported", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported_by(*words: str) -> set[str]:
    """The top-level packages that a command imports."""
    done = subprocess.run(
        [sys.executable, "-c", MODULES, *words], capture_output=True, text=True, timeout=60
    )
    line = done.stdout.splitlines()[-1].split()
    assert line[0] == "imported", done.stderr
    return set(line[1:])


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["no-such-command"]])
def test_the_command_line_alone_imports_nothing_heavy(words: list[str]) -> None:
    assert imported_by(*words) & HEAVY == set()


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        (["push", "--help"], HEAVY - {"httpx"}),
        (["example-export", "--help"], HEAVY),
        (["uploads", "--help"], {"aiohttp", "alembic", "fastapi", "fhir"}),
        (["sandbox", "--help"], HEAVY),
    ],
)
def test_a_command_imports_only_what_it_needs(words: list[str], unneeded: set[str]) -> None:
    assert imported_by(*words) & unneeded == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_each_line_of_the_help_leads_to_a_command_with_help_of_its_own(name: str) -> None:
    loaded = COMMANDS[name].load(name)
    assert loaded.help


def complete(words: str) -> list[str]:
    """What bash would offer after `words`."""
    done = subprocess.run(
        command(),
        env={
            **os.environ,
            "_UPLIFT_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.split()


def test_the_shell_completes_commands_their_options_and_their_values() -> None:
    assert complete("uplift up") == ["up", "uploads"]
    assert complete("uplift uploads re") == ["redrive"]
    assert complete("uplift uploads list --resource") == ["--resource-type"]
    assert "delivered" in complete("uplift uploads list --status d")


def test_the_group_lists_exactly_its_commands(tmp_path: Path) -> None:
    group = typer.main.get_command(app)
    assert list(group.commands) == list(COMMANDS)  # type: ignore[attr-defined]
