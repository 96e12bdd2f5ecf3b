"""Values without content: empty objects, arrays and strings, and what holds nothing else.

FHIR forbids them (https://hl7.org/fhir/R4/json.html). Form fields and serialisers write them all
the same. They count as absent, so that an empty value never stands in for a required one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from uplift.fhir.document import JsonObject
from uplift.fhir.expressions import below
from uplift.fhir.findings import Finding, Kind
from uplift.fhir.issues import Code

_BLANK = " \t\r\n"

# An empty narrative is judged with the other narratives. Comments may be anything.
_JUDGED_ELSEWHERE = frozenset({"div", "fhir_comments"})

_NOT_CONTENT = frozenset(
    {"resourceType", "id", "meta", "text", "identifier", "extension"}
    | {"implicitRules", "language", "fhir_comments", "_id", "_implicitRules", "_language"}
)

_EMPTY = {
    Kind.EMPTY_STRING: "An empty or blank string",
    Kind.EMPTY_ARRAY: "An empty array",
    Kind.EMPTY_OBJECT: "An empty object",
}


def is_blank(text: str) -> bool:
    """Whether the text is empty or white space."""
    return not text.strip(_BLANK)


def has_content(value: Any) -> bool:
    """Whether anything in the value is more than an empty object, array or string."""
    if isinstance(value, str):
        return not is_blank(value)
    if isinstance(value, dict):
        return any(has_content(child) for child in value.values())
    if isinstance(value, list):
        return any(has_content(item) for item in value)
    return True


def says_nothing(resource: JsonObject) -> bool:
    """Whether the resource holds nothing beyond what names, labels or extends it."""
    for name, value in resource.items():
        if name not in _NOT_CONTENT and has_content(value):
            return False
    # HL7's own example of a Device is an identifier: what else tells one device from another?
    return resource.get("resourceType") != "Device" or not has_content(
        resource.get("identifier", "")
    )


@dataclass(frozen=True, slots=True)
class Empties:
    """The values without content in one document."""

    _ids: frozenset[int]  # of its objects and arrays, which live as long as the document

    @classmethod
    def of(cls, document: JsonObject) -> Self:
        """Those of the document, found in one pass."""
        found: set[int] = set()
        _collect(document, found)
        return cls(frozenset(found))

    def has(self, name: str | int, value: Any) -> bool:
        """Whether the value, which has this name or index, is without content."""
        if name in _JUDGED_ELSEWHERE:
            return False
        if isinstance(value, str):
            return is_blank(value)
        return id(value) in self._ids

    def findings(self, value: Any, expression: str) -> Iterator[Finding]:
        """One for each empty object, array and string in the document, wherever it is."""
        steps = value.items() if isinstance(value, dict) else enumerate(value)
        for step, child in steps:
            if step in _JUDGED_ELSEWHERE:
                continue
            if (isinstance(child, str) and is_blank(child)) or child in ({}, []):
                yield _finding(child, below(expression, step))
            elif isinstance(child, dict | list):
                yield from self.findings(child, below(expression, step))


def _collect(value: Any, found: set[int]) -> bool:
    """Add what is without content to `found`. True if the value is."""
    if isinstance(value, str):
        return is_blank(value)
    if isinstance(value, dict):
        parts = [
            name not in _JUDGED_ELSEWHERE and _collect(child, found)
            for name, child in value.items()
        ]
    elif isinstance(value, list):
        parts = [_collect(item, found) for item in value]
    else:
        return False
    if all(parts):
        found.add(id(value))
        return True
    return False


def _finding(value: Any, expression: str) -> Finding:
    match value:
        case str():
            kind = Kind.EMPTY_STRING
        case list():
            kind = Kind.EMPTY_ARRAY
        case _:
            kind = Kind.EMPTY_OBJECT
    code: Code = "value" if kind is Kind.EMPTY_STRING else "structure"
    return Finding(
        kind,
        code,
        expression,
        f"{_EMPTY[kind]} is not allowed: leave the element out. It counts as absent.",
    )
