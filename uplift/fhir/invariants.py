"""The rules that no schema can express: nulls in arrays, periods, narratives."""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from html.entities import name2codepoint
from typing import Any
from xml.parsers import expat

from uplift.fhir.document import JsonObject
from uplift.fhir.expressions import below
from uplift.fhir.findings import Finding, Kind
from uplift.fhir.issues import ISSUES_KEPT

_Path = tuple[str | int, ...]

_XHTML = "http://www.w3.org/1999/xhtml"
_XML_ENTITIES = frozenset({"amp", "lt", "gt", "quot", "apos"})
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]*);", re.ASCII)
# https://hl7.org/fhir/R4/narrative.html: no active content, and no content from other places.
_FORBIDDEN_ELEMENTS = frozenset(
    {"script", "form", "input", "button", "select", "textarea", "object", "embed", "applet"}
    | {"iframe", "frame", "frameset", "head", "body", "html", "base", "link", "meta"}
)

_MAX_NARRATIVE_DEPTH = 100  # each open tag costs the parser memory


def invariant_findings(resource: JsonObject, expression: str) -> Iterator[Finding]:
    """All findings in the resource. `expression` is its place."""
    for value, path in _objects(resource, ()):
        yield from _object_findings(value, expression, path)


def _objects(value: Any, path: _Path) -> Iterator[tuple[JsonObject, _Path]]:
    # A path becomes an expression only where there is a finding, so almost never.
    steps: Iterable[tuple[str | int, Any]]
    if isinstance(value, dict):
        yield value, path
        steps = value.items()
    else:
        steps = enumerate(value)
    for step, child in steps:
        if isinstance(child, dict | list):
            yield from _objects(child, (*path, step))


def _object_findings(value: JsonObject, expression: str, path: _Path) -> Iterator[Finding]:
    start, end = value.get("start"), value.get("end")
    if isinstance(start, str) and isinstance(end, str) and _is_after(start, end):
        yield Finding(
            Kind.PERIOD_REVERSED,
            "invariant",
            below(expression, *path),
            "The start is later than the end.",
        )
    div = value.get("div")
    if isinstance(div, str) and (objection := _narrative_objection(div)):
        yield Finding(
            Kind.NARRATIVE_NOT_XHTML, "invariant", below(expression, *path, "div"), objection
        )
    for name, items in value.items():
        if isinstance(items, list) and None in items:
            yield from _null_findings(name, items, value, below(expression, *path))


def _null_findings(
    name: str, items: list[Any], holder: JsonObject, expression: str
) -> Iterator[Finding]:
    """A null in an array needs an item that is not null at the same index of the `_` array.

    Source: https://hl7.org/fhir/R4/json.html#primitive.
    """
    twin = holder.get(name[1:] if name.startswith("_") else f"_{name}")
    beside = twin if isinstance(twin, list) else []
    unexplained = [
        index
        for index, item in enumerate(items)
        if item is None and (index >= len(beside) or beside[index] is None)
    ]
    for index in unexplained[:ISSUES_KEPT]:
        yield Finding(
            Kind.STRUCTURE,
            "structure",
            below(expression, name, index),
            "null is allowed here only beside an item of the array with the same name "
            f"{'without' if name.startswith('_') else 'and'} an underscore in front.",
        )
    if (more := len(unexplained) - ISSUES_KEPT) > 0:
        yield Finding(
            Kind.STRUCTURE, "structure", expression, "There are more nulls of this kind.", more
        )


def _is_after(start: str, end: str) -> bool:
    """Whether `start` is certainly later than `end`. They may have different precisions."""
    if "T" in start and "T" in end:
        try:
            return datetime.fromisoformat(start) > datetime.fromisoformat(end)
        except (ValueError, TypeError):  # TypeError: one has a zone, the other none
            return False
    precision = min(len(start), len(end), len("YYYY-MM-DD"))
    return start[:precision] > end[:precision]


def _narrative_objection(div: str) -> str | None:
    """What is wrong with a narrative, or None."""
    try:
        return _Narrative().objection_to(div)
    except expat.ExpatError:
        return "The narrative is not well-formed XHTML."


class _Narrative:
    """One pass over a narrative."""

    def __init__(self) -> None:
        self._objection: str | None = None
        self._depth = 0
        self._has_content = False

    def objection_to(self, div: str) -> str | None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.Parse(_ENTITY.sub(_numeric, div), True)
        if self._objection is None and not self._has_content:
            return "The narrative has neither text nor an image."
        return self._objection

    def _object(self, words: str) -> None:
        self._objection = self._objection or words

    def _doctype(self, *_: object) -> None:
        # So no entity can be declared, and none can grow.
        raise expat.ExpatError("doctype")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        # HL7's own DSTU2 examples leave the namespace out.
        if self._depth == 0 and (local != "div" or namespace not in ("", _XHTML)):
            self._object(f'The narrative must be one <div xmlns="{_XHTML}">.')
        if local in _FORBIDDEN_ELEMENTS or any(each.startswith("on") for each in attributes):
            self._object("The narrative contains active or foreign content.")
        self._has_content |= local == "img"
        self._depth += 1
        if self._depth > _MAX_NARRATIVE_DEPTH:
            raise expat.ExpatError("too deep")

    def _end(self, _: str) -> None:
        self._depth -= 1

    def _text(self, text: str) -> None:
        self._has_content |= bool(text.strip())


def _numeric(entity: re.Match[str]) -> str:
    """XHTML's named entities as numbers: XML knows only five by name."""
    name = entity[1]
    if name in _XML_ENTITIES or name not in name2codepoint:
        return entity[0]
    return f"&#{name2codepoint[name]};"
