"""The codes of a value set, as far as HL7's definitions list them."""

from collections.abc import Iterable, Iterator
from typing import Any

from uplift.fhir.generate.definitions import Definitions, Resource

Codes = dict[str, frozenset[str]]
"""Codes by their system."""


class Terminology:
    """The value sets and code systems of one version."""

    def __init__(self, definitions: Definitions) -> None:
        self._value_sets = definitions.value_sets
        self._code_systems = definitions.code_systems

    def codes(self, value_set_url: str) -> Codes | None:
        """All codes of the value set by system, or None if they cannot be listed.

        That is so for systems outside FHIR (MIME types, languages, LOINC) and for filters other
        than `is-a` and `descendent-of`: such a binding is not checked.
        """
        value_set = self._value_sets.get(value_set_url.split("|")[0])
        if value_set is None:
            return None
        found: dict[str, frozenset[str]] = {}
        if inline := value_set.get("codeSystem"):  # DSTU2
            _merge(found, {inline["system"]: frozenset(_tree(inline.get("concept", [])))})
        compose = value_set.get("compose", {})
        parts = [self._included(part) for part in compose.get("include", [])]
        parts += [self.codes(url) for url in compose.get("import", [])]  # DSTU2
        for part in parts:
            if part is None:
                return None
            _merge(found, part)
        for part in compose.get("exclude", []):
            for system, codes in (self._included(part) or {}).items():
                found[system] = found.get(system, frozenset()) - codes
        return {system: codes for system, codes in found.items() if codes} or None

    def _included(self, part: dict[str, Any]) -> Codes | None:
        """The codes of one `include`: its system's, limited to the value sets that it names."""
        imported = [self.codes(url) for url in part.get("valueSet", [])]
        narrowed = [codes for codes in imported if codes is not None]
        if len(narrowed) != len(imported):
            return None
        if "system" in part:
            own = self._system_codes(part)
            if own is None:
                return None
            narrowed.append({part["system"]: own})
        if not narrowed:
            return None
        first, *others = narrowed
        return {
            system: codes.intersection(*(other.get(system, frozenset()) for other in others))
            for system, codes in first.items()
        }

    def _system_codes(self, part: dict[str, Any]) -> frozenset[str] | None:
        if concepts := part.get("concept"):
            return frozenset(concept["code"] for concept in concepts)
        system = self._code_systems.get(part["system"])
        if system is None:
            return None
        codes = frozenset(_tree(system.get("concept", [])))
        for rule in part.get("filter", []):
            if rule["property"] != "concept" or rule["op"] not in ("is-a", "descendent-of"):
                return None
            below = frozenset(_below(system, rule["value"]))
            codes &= below if rule["op"] == "descendent-of" else below | {rule["value"]}
        return codes


def _merge(into: dict[str, frozenset[str]], codes: Codes) -> None:
    for system, more in codes.items():
        into[system] = into.get(system, frozenset()) | more


def _tree(concepts: Iterable[Resource]) -> Iterator[str]:
    for concept in concepts:
        yield concept["code"]
        yield from _tree(concept.get("concept", []))


def _below(system: Resource, ancestor: str) -> Iterator[str]:
    """Every code under `ancestor`, by nesting or by the properties that mean the same."""
    children: dict[str, list[str]] = {}

    def visit(concepts: Iterable[Resource], parent: str | None) -> None:
        for concept in concepts:
            code = concept["code"]
            if parent is not None:
                children.setdefault(parent, []).append(code)
            for claim in concept.get("property", []):
                match claim:
                    case {"code": "parent" | "subsumedBy", "valueCode": above}:
                        children.setdefault(above, []).append(code)
                    case {"code": "child", "valueCode": below}:
                        children.setdefault(code, []).append(below)
            visit(concept.get("concept", []), code)

    visit(system.get("concept", []), None)
    pending, seen = [ancestor], {ancestor}
    while pending:
        for code in children.get(pending.pop(), []):
            if code not in seen:
                seen.add(code)
                pending.append(code)
                yield code
