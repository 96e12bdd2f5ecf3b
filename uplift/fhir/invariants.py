"""The rules that no schema can express: nulls in arrays, periods, narratives, HL7's invariants."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from uplift.fhir.constraints import RULES, broken_by_contained, broken_by_object, refers_inside
from uplift.fhir.document import JsonObject, resources_in
from uplift.fhir.expressions import below
from uplift.fhir.findings import Finding, Kind
from uplift.fhir.issues import ISSUES_KEPT
from uplift.fhir.narrative import narrative_objection
from uplift.fhir.versions import FhirVersion

_Path = tuple[str | int, ...]


def invariant_findings(
    resource: JsonObject, expression: str, version: FhirVersion
) -> Iterator[Finding]:
    """All findings in the resource. `expression` is its place."""
    inside = False
    for value, path in _objects(resource, ()):
        inside = inside or refers_inside(value)
        yield from _object_findings(value, expression, path)
        for kind, steps in broken_by_object(value, version):
            yield _broken(kind, below(expression, *path, *steps))
    if inside:
        for each, where in resources_in(resource, expression):
            if not where.rpartition(".")[2].startswith("contained["):
                for kind, steps in broken_by_contained(each):
                    yield _broken(kind, below(where, *steps))


def _broken(kind: Kind, expression: str) -> Finding:
    return Finding(kind, "invariant", expression, f"{kind}: {RULES[kind]}.")


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
    if isinstance(div, str) and (objection := narrative_objection(div)):
        yield Finding(Kind.BAD_NARRATIVE, "invariant", below(expression, *path, "div"), objection)
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
