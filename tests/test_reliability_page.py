"""docs/reliability.md names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_NAMED = re.findall(
    r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (_ROOT / "docs" / "reliability.md").read_text()
)


@pytest.mark.parametrize(("file", "test"), sorted(set(_NAMED)))
def test_a_test_that_the_page_names_exists(file: str, test: str) -> None:
    tree = ast.parse((_ROOT / file).read_text())
    functions = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not test or test in functions


def test_each_promise_names_tests() -> None:
    page = (_ROOT / "docs" / "reliability.md").read_text()
    promises = re.split(r"^## \d\. ", page, flags=re.MULTILINE)[1:]
    assert len(promises) == 4
    for promise in promises:
        rows = [line for line in promise.partition("\n## ")[0].splitlines() if line[:1] == "|"]
        for row in rows[2:]:
            assert "::test_" in row, row
