"""The errors, and the drawing of them."""

import re
from pathlib import Path

import uplift
from uplift import errors
from uplift.errors import UpliftError
from uplift.problem_types import ProblemType

ROOT = Path(uplift.__file__).parent
# The edges have errors of their own: for the person at the command, for HTTP, for the task queue.
EDGES = {"api", "cli", "sandbox", "worker"}


def drawn() -> list[tuple[str, str | None]]:
    """Each error of the drawing, and the error above it."""
    found: list[tuple[str, str | None]] = []
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"((?:[│ ]   )*)(?:[├└]── )?([A-Z]\w+)(?:   ?|$)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4 + ("── " in line)
        path[depth:] = [match[2]]
        found.append((match[2], path[depth - 1] if depth else None))
    return found


def test_the_drawing_at_the_top_is_the_tree_of_the_classes() -> None:
    defined = [
        (name, value.__bases__[0].__name__ if value is not UpliftError else None)
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert drawn() == defined


def test_every_error_can_be_caught_as_one_of_uplifts() -> None:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, UpliftError)


def test_no_wing_has_an_error_outside_the_tree() -> None:
    names = "|".join(["Exception", *(name for name, _ in drawn())])
    # A private exception never leaves its file.
    defines = re.compile(rf"^class ([A-Za-z]\w*)\((?:{names})\):", re.MULTILINE)
    edges = {*EDGES, "client"}  # the client imports nothing of ours
    elsewhere = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in ROOT.rglob("*.py")
        if file.relative_to(ROOT).parts[0] not in edges and file != Path(errors.__file__)
        for name in defines.findall(file.read_text())
    }
    assert elsewhere == set()


def test_an_unavailable_upstream_can_say_when_to_come_back() -> None:
    kind = ProblemType.UPSTREAM_UNAVAILABLE
    assert errors.UpstreamUnavailable(kind, "later").retry_after is None
    assert errors.UpstreamUnavailable(kind, "later", retry_after=3.0).retry_after == 3.0
