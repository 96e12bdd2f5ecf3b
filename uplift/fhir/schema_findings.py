"""The errors of a resource by the schema of its type. Values without content count as absent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from uplift.fhir.described_error import DescribedError
from uplift.fhir.document import JsonObject
from uplift.fhir.empties import Empties
from uplift.fhir.expressions import below
from uplift.fhir.findings import Finding, Kind
from uplift.fhir.own_rules import OwnRules, own_rules
from uplift.fhir.versions import FhirVersion

_Path = tuple[str | int, ...]


def schema_findings(
    resource: JsonObject, expression: str, version: FhirVersion, empties: Empties
) -> Iterator[Finding]:
    """Every error by the schema of the resource's type, one after the other as they are asked for.

    The version must have that type. `empties` are those of the document.
    """
    yield from _Walk(expression, version, empties).findings(resource, resource["resourceType"], ())


@dataclass(frozen=True, slots=True)
class _Walk:
    """One pass over a resource."""

    expression: str
    version: FhirVersion
    empties: Empties

    def findings(self, value: Any, name: str, path: _Path) -> Iterator[Finding]:
        """What the definition of that name says about a value at `path`, and about all inside."""
        rules = own_rules(self.version, name)
        if isinstance(value, dict):
            value = {
                field: child for field, child in value.items() if not self.empties.has(field, child)
            }
        stand_in, errors, more_unknown = rules.errors(value)
        for error in errors:
            where = below(self.expression, *path)
            yield from DescribedError(error, stand_in, where, self.version).findings()
        if more_unknown:
            yield Finding(
                Kind.UNKNOWN_ELEMENT,
                "structure",
                below(self.expression, *path),
                "There are more unknown elements.",
                more_unknown,
            )
        for part in rules.parts:
            yield from self.findings(value, part, path)
        if isinstance(value, dict):
            for child, inner, steps in self._inside(value, rules):
                yield from self.findings(child, inner, (*path, *steps))

    def _inside(self, value: JsonObject, rules: OwnRules) -> Iterator[tuple[Any, str, _Path]]:
        """What is inside the value and has a definition, with its name, and the steps to it."""
        for field, child in value.items():
            if inner := rules.elements.get(field):
                yield child, inner, (field,)
            elif isinstance(child, list) and (inner := rules.items.get(field)):
                for index, item in enumerate(child):
                    if not self.empties.has(index, item):
                        yield item, inner, (field, index)
