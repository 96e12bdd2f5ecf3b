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

_Node = tuple[Any, Any, str | int]
"""A value with the node of its holder, and the step from there. Only findings need a whole path."""

_JUDGED = frozenset({"start", "div", "data", "reference", "contained", "resourceType"}) | frozenset(
    {"extension", "modifierExtension"}
)
"""The names that a rule needs. Most objects have none of them."""

_HOLDERS = (dict, list)


def invariant_findings(
    resource: JsonObject, expression: str, version: FhirVersion
) -> Iterator[Finding]:
    """All findings in the resource. `expression` is its place."""
    inside = False
    pending: list[_Node] = [(resource, None, "")]
    while pending:
        node = pending.pop()
        value = node[0]
        if isinstance(value, dict):
            steps: Iterable[tuple[str | int, Any]] = value.items()
            if not _JUDGED.isdisjoint(value):
                inside = inside or refers_inside(value)
                yield from _object_findings(value, expression, node, version)
        else:
            steps = enumerate(value)
            if None in value:
                yield from _null_findings(value, expression, node)
        held = [(child, node, step) for step, child in steps if isinstance(child, _HOLDERS)]
        pending += held[::-1]
    if inside:
        for each, where in resources_in(resource, expression):
            if not where.rpartition(".")[2].startswith("contained["):
                for kind, path in broken_by_contained(each):
                    yield _broken(kind, below(where, *path))


def _place(expression: str, node: _Node, *more: str | int) -> str:
    steps: list[str | int] = []
    while node[1] is not None:
        steps.append(node[2])
        node = node[1]
    return below(expression, *reversed(steps), *more)


def _broken(kind: Kind, expression: str) -> Finding:
    return Finding(kind, "invariant", expression, f"{kind}: {RULES[kind]}.")


def _object_findings(
    value: JsonObject, expression: str, node: _Node, version: FhirVersion
) -> Iterator[Finding]:
    start, end = value.get("start"), value.get("end")
    if isinstance(start, str) and isinstance(end, str) and _is_after(start, end):
        yield Finding(
            Kind.PERIOD_REVERSED,
            "invariant",
            _place(expression, node),
            "The start is later than the end.",
        )
    div = value.get("div")
    if isinstance(div, str) and (objection := narrative_objection(div)):
        yield Finding(Kind.BAD_NARRATIVE, "invariant", _place(expression, node, "div"), objection)
    for kind, steps in broken_by_object(value, version):
        yield _broken(kind, _place(expression, node, *steps))


def _null_findings(items: list[Any], expression: str, node: _Node) -> Iterator[Finding]:
    """A null in an array needs an item that is not null at the same index of the `_` array.

    Source: https://hl7.org/fhir/R4/json.html#primitive.
    """
    _, (holder, *_), name = node
    if not isinstance(holder, dict):
        return  # an array in an array: the schema refuses it
    name = str(name)
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
            _place(expression, node, index),
            "null is allowed here only beside an item of the array with the same name "
            f"{'without' if name.startswith('_') else 'and'} an underscore in front.",
        )
    if (more := len(unexplained) - ISSUES_KEPT) > 0:
        yield Finding(
            Kind.STRUCTURE,
            "structure",
            _place(expression, node),
            "There are more nulls of this kind.",
            more,
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
