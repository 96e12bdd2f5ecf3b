"""`docs/privacy.md` speaks of every column there is, and of no other."""

import re
from pathlib import Path

from uplift.ledger.tables import Table

PAGE = Path(__file__).parents[3] / "docs" / "privacy.md"

SENSITIVE = {"health", "secret", "person", "hint", "no"}
SEALED = {"data key", "master key", "keyed hash", "hash", "no"}

_HEADING = re.compile(r"^#{1,2} (?:`(?P<table>\w+)`)?")
_ROW = re.compile(r"^\| `(?P<column>\w+)` \|(?P<cells>.*)\|$")


def page() -> dict[str, list[tuple[str, list[str]]]]:
    """The columns of each table in the page's order, each with the cells after its name."""
    tables: dict[str, list[tuple[str, list[str]]]] = {}
    rows: list[tuple[str, list[str]]] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := _HEADING.match(line):
            rows = []
            if heading["table"]:
                assert heading["table"] not in tables, f"{heading['table']} is there twice"
                tables[heading["table"]] = rows
        elif row := _ROW.match(line):
            rows.append((row["column"], [cell.strip() for cell in row["cells"].split("|")]))
    return tables


def test_it_has_every_column_once_and_no_other() -> None:
    there = {
        table.name: sorted(column.name for column in table.columns)
        for table in Table.metadata.sorted_tables
    }
    assert {name: sorted(column for column, _ in rows) for name, rows in page().items()} == there


def test_every_column_has_an_answer_to_every_question() -> None:
    for table, rows in page().items():
        for column, cells in rows:
            where = f"{table}.{column}"
            assert len(cells) == 5, where
            assert all(cells), where
            _, sensitive, sealed, _, _ = cells
            assert sensitive in SENSITIVE, where
            assert sealed in SEALED, where


def test_what_it_calls_sealed_is_what_the_ledger_calls_sealed() -> None:
    for table, rows in page().items():
        for column, (_, _, sealed, _, _) in rows:
            assert (sealed == "data key") == column.startswith("sealed_"), f"{table}.{column}"
            assert (sealed == "master key") == (column == "wrapped_key"), f"{table}.{column}"


def test_no_health_data_and_no_secret_is_in_the_clear() -> None:
    clear = [
        f"{table}.{column}"
        for table, rows in page().items()
        for column, (_, sensitive, sealed, _, _) in rows
        if sensitive in {"health", "secret"} and sealed == "no"
    ]
    assert clear == []


def test_it_names_backups() -> None:
    assert "\n# Backups\n" in PAGE.read_text(encoding="utf-8")
