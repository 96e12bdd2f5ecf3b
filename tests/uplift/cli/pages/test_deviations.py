from pathlib import Path

from uplift.cli.pages.deviations import table

PAGE = Path(__file__).parents[4] / "docs" / "validation.md"


def test_the_page_has_the_catalogue_of_deviations() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")
