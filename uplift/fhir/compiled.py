"""The generated schemas, compiled when they are first used."""

import re
from collections.abc import Mapping
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
    properties = {name: {"$ref": f"#/definitions/{name}"} for name in sorted(types)}
    definitions = _definitions(version)
    reachable = sorted(_reachable(definitions, types))
    listed = ",".join(f'"{name}":{definitions[name]}' for name in reachable)
    return Draft4Validator(
        f'{{"properties":{orjson.dumps(properties).decode()},"additionalProperties":false,'
        f'"definitions":{{{listed}}}}}',
        # The time is linear in the length of the text, whatever the text is.
        pattern_options=RegexOptions(),
        mask="(a value)",  # messages show no value of the record
        offline=True,
    )


def validator(version: FhirVersion, resource_type: str) -> Draft4Validator:
    """The compiled schema of `{resource_type: resource}`; from any thread.

    HealthKit's types are compiled together, because they share much: for R4 that takes 11 MB
    instead of 26. Every other type is compiled when its first resource comes. All types of R4 would
    take 52 MB.
    """
    alone = frozenset({resource_type})
    together = HEALTHKIT_TYPES & resource_types(version)
    with _compiling:
        return _compiled(version, together if resource_type in together else alone)


def _reachable(definitions: Mapping[str, str], types: frozenset[str]) -> set[str]:
    found: set[str] = set()
    pending = list(types)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(_REFERENCE.findall(definitions[name]))
    return found
