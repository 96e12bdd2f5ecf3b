"""`docs/errors.md` lists every code that a program can meet, and nothing else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import httpx

import uplift
from uplift.lifecycle import Reason
from uplift.problem_types import ProblemType

_ROOT = Path(uplift.__file__).parent
_PAGE = (_ROOT.parent / "docs" / "errors.md").read_text()
_PARTS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", _PAGE, re.MULTILINE | re.DOTALL))

# Where the code of a response stands among the arguments.
_ARGUMENT = {
    "Response": 1,
    "TokenError": 1,
    "TokenPending": 0,
    "TokenLimitReached": 0,
    "TokenUnavailable": 0,
    "_Next": 2,
    "_Retry": 1,
    "_Wait": 1,
}


def _rows(part: str) -> dict[str, list[str]]:
    """The rows of a part's tables by their first cell."""
    rows = [row.strip("| ").split(" | ") for row in _PARTS[part].splitlines() if "`" in row[:60]]
    return {re.sub(r"<a.*?</a>", "", row[0]): row for row in rows if len(row) > 2}


def _codes_of_responses() -> Iterator[str]:
    """Every code that the source gives to a response, up to what it puts into it."""
    for wing in ("destinations", "delivery", "tokens"):
        for path in (_ROOT / wing).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=ast.Name(id=name), args=args):
                        at = _ARGUMENT.get(name)
                        given = args[at] if at is not None and at < len(args) else None
                    case ast.Assign(targets=[ast.Name(id="code" | "QUOTA_SPENT")], value=given):
                        pass
                    case _:
                        continue
                match given:
                    case ast.Constant(value=str(code)):
                        yield code
                    case ast.JoinedStr(values=[ast.Constant(value=str(code)), *_]):
                        yield code


def test_every_problem_is_on_the_page_with_its_status_and_its_place() -> None:
    rows = _rows("Problems")
    assert set(rows) == {f"`{each.code}`" for each in ProblemType}
    for each in ProblemType:
        anchor, status, title, advice = rows[f"`{each.code}`"]
        assert f'<a id="{each.uri.partition("#")[2]}"></a>' in anchor
        assert (status, title) == (str(each.status), f"{each.title}.")
        assert advice


def test_every_reason_is_on_the_page() -> None:
    assert set(_rows("Reasons")) == {f"`{each}`" for each in Reason}


def test_every_code_of_a_response_is_on_the_page() -> None:
    told = set(re.findall(r"`(\w+)`", " ".join(_rows("Responses"))))
    given = set(_codes_of_responses())
    assert len(given) > 20
    assert "`look_up_`" in _PARTS["Responses"]
    assert {each for each in given - told if not each.startswith("http_")} == {"look_up_"}


async def test_the_type_of_a_problem_leads_to_the_page(anybody: httpx.AsyncClient) -> None:
    problem = (await anybody.get("/v1/nothing")).json()
    page = await anybody.get(problem["type"])
    assert page.status_code == 200
    assert page.text == _PAGE
    assert f'<a id="{problem["code"]}"></a>' in page.text


async def test_only_a_wrong_credential_is_called_an_invalid_token(
    anybody: httpx.AsyncClient,
) -> None:
    """RFC 6750, 3.1."""
    without = await anybody.get("/v1/users")
    wrong = await anybody.get("/v1/users", headers={"Authorization": "Bearer wrong"})
    assert without.headers["WWW-Authenticate"] == "Bearer"
    assert wrong.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
