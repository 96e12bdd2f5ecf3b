"""Does a server declare what the mode needs? By its CapabilityStatement, in DSTU2 its Conformance.

What is not declared may be there all the same: HAPI declares no `updateCreate`, and has it. A
server that says `false` has it not. Sources: https://hl7.org/fhir/R4/capabilitystatement.html and
https://hl7.org/fhir/R4/http.html#capabilities.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from uplift.destinations.destination import Destination, Mode, Subject
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.fhir.types import HEALTHKIT_TYPES, RELAYED_TYPES
from uplift.fhir.versions import FhirVersion

PART = "destinations"

_MAX_NAMED = 5

# Of each mode, what must be there: interactions of a type, and its abilities.
_INTERACTIONS: Mapping[Mode, tuple[str, ...]] = MappingProxyType(
    {
        Mode.ONEUP: ("create", "update", "read", "search-type"),
        Mode.PUT: ("update", "read", "delete"),
        Mode.UPSERT: ("update", "read", "search-type", "delete"),
    }
)
_ABILITIES: Mapping[Mode, tuple[str, ...]] = MappingProxyType(
    {Mode.ONEUP: (), Mode.PUT: ("updateCreate",), Mode.UPSERT: ("conditionalUpdate",)}
)
_CURES = {
    "updateCreate": "If it is not there, no record can be stored: let the server create what a PUT"
    " names (Google: --enable-update-create), or set mode to upsert.",
    "conditionalUpdate": "If it is not there, no record can be stored: let the server take a PUT to"
    " a search, or set mode to put.",
    "delete": "Records are delivered all the same. Erasing people there needs it.",
}
_PROVE = "It may be there all the same: `uplift doctor --write` proves it with a test Patient."
_REST = "Ask the server's operator, or do not send such records there."


def judge_manual(
    destination: Destination,
    version: FhirVersion,
    statement: Mapping[str, Any],
    proven: Collection[str] = (),
) -> list[Finding]:
    """What a base declares, compared with what the destination's mode needs. One line a finding.

    `proven` are the interactions and abilities that a test Patient has shown to be there.
    """
    base = _Base(f"{destination.name}, base of {version}", _types(statement), frozenset(proven))
    wanted = _wanted(destination, version)
    missing = sorted(wanted - base.declared.keys())
    there = sorted(wanted & base.declared.keys())
    found = [
        *(base.interaction(name, there) for name in _INTERACTIONS[destination.mode]),
        *(base.ability(name, there) for name in _ABILITIES[destination.mode]),
    ]
    said = [finding for finding in found if finding is not None]
    if missing:
        what = f"{base.name}: not declared are the types {_listed(missing)}"
        said.append(warn(PART, what, _REST))
    if not said:
        needs = ", ".join((*_INTERACTIONS[destination.mode], *_ABILITIES[destination.mode]))
        what = f"{base.name}: it declares what mode {destination.mode} needs ({needs})"
        said.append(ok(PART, f"{what} of {len(there)} types"))
    return said


@dataclass(frozen=True, slots=True)
class _Base:
    """What one base declares, by type, and what was proven there."""

    name: str
    declared: Mapping[str, Mapping[str, Any]]
    proven: frozenset[str]

    def interaction(self, name: str, types: list[str]) -> Finding | None:
        """What to say of an interaction that these types need; None if all declare it."""
        without = [each for each in types if name not in _interactions(self.declared[each])]
        return self._not_declared(name, without, types) if without else None

    def ability(self, name: str, types: list[str]) -> Finding | None:
        """The same of an ability, of which a type may say that it has it not."""
        refused = [each for each in types if self.declared[each].get(name) is False]
        without = [each for each in types if self.declared[each].get(name) is not True]
        if refused and name not in self.proven:
            said = f"{self.name}: it says that there is no {name} of {_of(refused, types)}"
            return fail(PART, said, _CURES[name])
        return self._not_declared(name, without, types) if without else None

    def _not_declared(self, name: str, without: list[str], types: list[str]) -> Finding:
        said = f"{self.name}: {name} is not declared of {_of(without, types)}"
        if name in self.proven:
            return ok(PART, f"{said}, and is there: the test Patient proves it")
        return warn(PART, said, f"{_PROVE} {_CURES.get(name, '')}".strip())


def _wanted(destination: Destination, version: FhirVersion) -> frozenset[str]:
    """The types that HealthKit brings in that version, and the Patient that Uplift makes."""
    patient = {"Patient"} if destination.subject is Subject.PATIENT else set()
    return (HEALTHKIT_TYPES & RELAYED_TYPES[version]) | patient


def _types(statement: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The types that a server declares. Of client's statements nothing counts."""
    found: dict[str, dict[str, Any]] = {}
    for rest in _objects(statement.get("rest")):
        if rest.get("mode", "server") == "server":
            for each in _objects(rest.get("resource")):
                if isinstance(each.get("type"), str):
                    found[each["type"]] = each
    return found


def _interactions(declared: Mapping[str, Any]) -> set[str]:
    return {str(each.get("code")) for each in _objects(declared.get("interaction"))}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _of(some: list[str], every: list[str]) -> str:
    return "any type" if len(some) == len(every) else _listed(some)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMED])
    rest = len(names) - _MAX_NAMED
    return f"{shown} and {rest} more" if rest > 0 else shown
