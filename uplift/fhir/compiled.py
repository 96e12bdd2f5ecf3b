"""The generated schemas, compiled when they are first used."""

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import orjson
from jsonschema_rs import Draft4Validator, RegexOptions

from uplift.fhir.types import HEALTHKIT_TYPES
from uplift.fhir.versions import FhirVersion

SCHEMA_FOLDER = Path(__file__).with_name("schemas")

_REFERENCE = re.compile(r'"#/definitions/([^"]+)"')
_compiling = Lock()
# Of R4's 135 other types, so many take 5 MB and 0.08 s. Each alone, all would take 220 MB; all in
# one, nothing else could run for half a second.
_GROUP = 12


def schema_file(version: FhirVersion) -> str:
    """The name of a version's schema file."""
    return f"{version.path}.schema.json"


@cache
def _definitions(version: FhirVersion) -> Mapping[str, str]:
    """Every definition of the version's schema as JSON text, by name.

    They stay text, because parsed they take several times the memory.
    """
    lines = (SCHEMA_FOLDER / schema_file(version)).read_text("ascii").splitlines()
    # Each line between the first and the last is one definition: see uplift.fhir.generate.files.
    found = (line.removesuffix(",").partition('":') for line in lines[1:-1])
    return {name.removeprefix('"'): text for name, _, text in found}


@lru_cache(maxsize=64)
def definition(version: FhirVersion, name: str) -> Mapping[str, Any]:
    """One definition of the version's schema.  Raises KeyError."""
    parsed: Mapping[str, Any] = orjson.loads(_definitions(version)[name])
    return parsed


@cache
def resource_types(version: FhirVersion) -> frozenset[str]:
    """Every resource type of the version, also those that 1upHealth does not accept."""
    return frozenset(definition(version, "Resource")["properties"]["resourceType"]["enum"])


@cache
def _compiled(version: FhirVersion, types: frozenset[str]) -> Draft4Validator:
    definitions = _definitions(version)
    reachable = {name: definitions[name] for name in sorted(_reachable(definitions, types))}
    return _validator(sorted(types), reachable)


def compiled(definitions: Mapping[str, Mapping[str, Any]]) -> Draft4Validator:
    """The compiled schema of `{name: value}`, where `name` is the first of these definitions."""
    texts = {name: orjson.dumps(schema).decode() for name, schema in definitions.items()}
    return _validator([next(iter(texts))], texts)


def references(schema: Mapping[str, Any]) -> list[str]:
    """The names of the definitions that a part of a schema refers to."""
    return _REFERENCE.findall(orjson.dumps(schema).decode())


def _validator(names: Sequence[str], definitions: Mapping[str, str]) -> Draft4Validator:
    properties = {name: {"$ref": f"#/definitions/{name}"} for name in names}
    listed = ",".join(f'"{name}":{text}' for name, text in definitions.items())
    return Draft4Validator(
        f'{{"properties":{orjson.dumps(properties).decode()},"additionalProperties":false,'
        f'"definitions":{{{listed}}}}}',
        # The time is linear in the length of the text, whatever the text is.
        pattern_options=RegexOptions(),
        mask="(a value)",  # messages show no value of the record
        offline=True,
    )


@cache
def _groups(version: FhirVersion) -> Mapping[str, frozenset[str]]:
    """The types that are compiled together with each type."""
    together = HEALTHKIT_TYPES & resource_types(version)
    others = sorted(resource_types(version) - together)
    groups = [together]
    groups += (frozenset(others[at : at + _GROUP]) for at in range(0, len(others), _GROUP))
    return {name: group for group in groups for name in group}


def validator(version: FhirVersion, resource_type: str) -> Draft4Validator:
    """The compiled schema of `{resource_type: resource}`; from any thread.

    HealthKit's types are compiled together, because they share much: for R4 that takes 11 MB
    instead of 26. The others are compiled in small groups, when the first resource of a group
    comes.
    """
    with _compiling:
        return _compiled(version, _groups(version)[resource_type])


def _reachable(definitions: Mapping[str, str], types: frozenset[str]) -> set[str]:
    found: set[str] = set()
    pending = list(types)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(_REFERENCE.findall(definitions[name]))
    return found
