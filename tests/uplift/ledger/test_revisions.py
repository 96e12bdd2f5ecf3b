"""On which ledgers this version works, and the rule that keeps the version before working."""

import re
from pathlib import Path

import pytest

from uplift.ledger import migrate
from uplift.ledger.revisions import Revisions

VERSIONS = Path(migrate.__file__).parent / "migrations" / "versions"


@pytest.mark.parametrize(
    ("at", "oldest", "said"),
    [
        ("0002", "0001", None),
        ("0003", "0001", None),
        ("0012", "0002", None),
        (None, None, "revision none, and .* needs 0002: run `uplift migrate`"),
        ("0001", "0001", "revision 0001, and .* needs 0002: run `uplift migrate`"),
        ("0003", "0003", "that know 0003; this one knows 0002: deploy the newer version"),
        ("0003", None, "deploy the newer version"),
    ],
)
def test_a_version_works_on_its_own_ledger_and_on_newer_ones_that_only_added(
    at: str | None, oldest: str | None, said: str | None
) -> None:
    problem = Revisions(at, oldest, "0002").problem
    assert (problem is None) == (said is None)
    assert said is None or re.search(said, problem or "")


# What takes away, or changes, something that the version before uses.
_TAKES = re.compile(
    r"op\.(drop_(?!index)\w+|alter_column|rename_table)|\b(DROP|RENAME|SET NOT NULL)\b"
)


def breaks_the_rule(source: str) -> bool:
    """Whether a migration takes something away and does not say so in the ledger."""
    upgrade = source.partition("def upgrade()")[2].partition("def downgrade()")[0]
    return bool(_TAKES.search(upgrade)) and "SET oldest_revision" not in upgrade


def test_a_migration_that_takes_away_says_which_revision_still_works() -> None:
    for file in VERSIONS.glob("0*.py"):
        assert not breaks_the_rule(file.read_text()), file.name


@pytest.mark.parametrize(
    "statement",
    [
        'op.drop_column("uploads", "reason")',
        'op.alter_column("uploads", "reason", nullable=False)',
        'op.execute("ALTER TABLE uploads RENAME COLUMN reason TO why")',
        'op.drop_constraint("a", "uploads")',
    ],
)
def test_that_rule_is_seen_to_be_broken(statement: str) -> None:
    assert breaks_the_rule(f"def upgrade() -> None:\n    {statement}\n")
    said = "op.execute(\"UPDATE alembic_version SET oldest_revision = '0002'\")"
    assert not breaks_the_rule(f"def upgrade() -> None:\n    {statement}\n    {said}\n")
    assert not breaks_the_rule(f"def upgrade() -> None:\n    pass\ndef downgrade():\n {statement}")
