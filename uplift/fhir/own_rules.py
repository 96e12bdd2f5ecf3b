"""What one definition of a schema says about a value itself, without what is inside the value.

The library describes all errors of a value at once, each with copies of the value and of everything
around it: 460 KB of wrong extensions take 3.6 GB. So errors are looked for one value after the
other, in a stand-in that holds no more than the definition judges.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jsonschema_rs import Draft4Validator, ValidationError

from uplift.fhir.compiled import compiled, definition, references
from uplift.fhir.issues import ISSUES_KEPT
from uplift.fhir.versions import FhirVersion

_STAND_IN = True


@dataclass(frozen=True, slots=True)
class OwnRules:
    """The rules of a definition. `elements` and `items` name the definitions of what is inside: of
    elements, and of the items of arrays. `parts` are the definitions that hold for the value too.
    """

    name: str
    elements: Mapping[str, str]
    items: Mapping[str, str]
    parts: tuple[str, ...]
    _max_items: Mapping[str, int]
    _names: frozenset[str] | None  # all that it judges; None: the value as it is
    _validator: Draft4Validator

    def errors(self, value: Any) -> tuple[Any, Iterator[ValidationError], int]:
        """The stand-in, its errors, and how many more names are unknown than it holds."""
        stand_in, unknown = self._stand_in(value)
        judged = {self.name: stand_in}
        if self._validator.is_valid(judged):
            return stand_in, iter(()), 0
        return stand_in, self._validator.iter_errors(judged), unknown

    def _stand_in(self, value: Any) -> tuple[Any, int]:
        if self._names is not None:
            return _only(value, self._names), 0
        if not isinstance(value, dict) or not (self.elements or self.items):
            return value, 0
        held: dict[str, Any] = {}
        unknown = 0
        for name, child in value.items():
            if name in self.elements:
                held[name] = _STAND_IN
            elif name in self.items:
                held[name] = self._array(name, child)
            elif name == "resourceType":
                held[name] = child
            else:
                unknown += 1
                if unknown <= ISSUES_KEPT:
                    held[name] = _STAND_IN
        return held, max(0, unknown - ISSUES_KEPT)

    def _array(self, name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [_STAND_IN] * min(len(value), self._max_items.get(name, 0) + 1)
        return {} if isinstance(value, dict) else value if value is None else _STAND_IN


@lru_cache(maxsize=1024)
def own_rules(version: FhirVersion, name: str) -> OwnRules:
    """The rules of that definition.  Raises KeyError."""
    schema = definition(version, name)
    elements: dict[str, str] = {}
    items: dict[str, str] = {}
    limits: dict[str, int] = {}
    parts: tuple[str, ...] = ()
    names: frozenset[str] | None = None
    own: dict[str, Any] = dict(schema)
    if "additionalProperties" in schema:
        own["properties"] = {}
        for field, about in schema["properties"].items():
            own["properties"][field] = {}
            if "$ref" in about:
                elements[field] = _target(about)
            elif "items" in about:
                items[field] = _target(about["items"]) or "string"
                own["properties"][field] = {**about, "items": {}}
                limits[field] = about.get("maxItems", 0)
            else:
                own["properties"][field] = about
    elif "allOf" in schema:
        parts = tuple(_target(each) for each in schema["allOf"] if "$ref" in each)
        own["allOf"] = [{} if "$ref" in each else each for each in schema["allOf"]]
        names = frozenset({"reference", "coding", "system", "code"})
    elif name == "Resource":
        names = frozenset({"resourceType"})
    return OwnRules(
        name, elements, items, parts, limits, names, compiled({name: own, **_used(version, own)})
    )


def _target(schema: Mapping[str, Any]) -> str:
    reference: str = schema.get("$ref", "")
    return reference.removeprefix("#/definitions/")


def _used(version: FhirVersion, own: Mapping[str, Any]) -> dict[str, Any]:
    return {name: definition(version, name) for name in references(own)}


def _only(value: Any, names: frozenset[str]) -> Any:
    """The value without all other elements."""
    if isinstance(value, dict):
        return {name: _only(value[name], names) for name in names if name in value}
    if isinstance(value, list):
        return [_only(item, names) for item in value]
    return value
