from pathlib import Path

from cli.lifecycle_page import diagram

PAGE = Path(__file__).parents[2] / "docs" / "lifecycle.md"


def test_the_page_draws_the_transition_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in PAGE.read_text()
