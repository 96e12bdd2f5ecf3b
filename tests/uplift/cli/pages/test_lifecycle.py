from pathlib import Path

from uplift.cli.pages.lifecycle import diagram

PAGE = Path(__file__).parents[4] / "docs" / "lifecycle.md"


def test_the_page_draws_the_transition_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in PAGE.read_text()
