"""Whatever a name has in it, a terminal is not steered by what a command prints."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from uplift.cli.output import Terminal, json_text
from uplift.cli.printable import printable

BAD = "a\x1b[31mb\x9b2Jc\u202ed\u2066e\u200ff\x7fg\r\x00h\u2028i\u061c\ufeff\ud800"
_PRINTS = re.compile(
    r"\btyper\.(?:echo|secho)\(|(?<!\w)Console\(|sys\.std(?:out|err)\.write\(|\bprint\("
)


def is_clean(text: str) -> bool:
    return all(char.isprintable() or char in "\n\u200c\u200d\u00a0" for char in text)


def test_control_and_bidi_characters_are_taken_out() -> None:
    assert is_clean(printable(BAD))
    assert re.sub("\ufffd", "", printable(BAD)) == "a[31mb2Jcdefghi"


@pytest.mark.parametrize(
    "text",
    ["Krankenhaus Süd", "北医院", "بیمارستان می\u200cخواهم", "a\nb", "👩\u200d⚕️", "a\u00a0b"],
)
def test_what_languages_need_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_every_way_to_print_on_a_console_is_clean(terminal: bool) -> None:
    written = io.StringIO()
    console = Terminal(file=written, force_terminal=terminal, color_system=None, width=200)
    bad = BAD.replace("\ud800", "")
    table = Table(bad, title=bad)
    table.add_row(bad)
    table.add_row(Text(bad))
    for each in (bad, Text(bad), table, f"[red]{bad}[/red]"):
        console.print(each)
    assert is_clean(written.getvalue())
    assert "[red]" in written.getvalue()


def test_json_stays_the_same_value() -> None:
    value = {"name": BAD.replace("\ud800", "") + "\U000e0041"}
    for indent in (True, False):
        text = json_text(value, indent=indent)
        assert is_clean(text)
        assert json.loads(text) == value


def test_no_command_prints_in_another_way() -> None:
    root = Path(__file__).parents[3] / "uplift" / "cli"
    # These two print nothing but their own words, before rich is imported.
    alone = {root / "output.py", root / "main.py", root / "environment.py"}
    found = [
        f"{file.relative_to(root)}: {line.strip()}"
        for file in root.rglob("*.py")
        if file not in alone and file.parent.name != "pages"
        for line in file.read_text().splitlines()
        if _PRINTS.search(line) and "_print(" not in line and ".print(" not in line
    ]
    assert found == []
