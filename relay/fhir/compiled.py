"""The generated schemas, each resource type compiled at its first use."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import orjson
from jsonschema_rs import Draft4Validator, RegexOptions

from relay.fhir.versions import FhirVersion

SCHEMA_FOLDER = Path(__file__).with_name("schemas")

_REF = "#/definitions/"
_compiling = Lock()


def schema_file(version: FhirVersion) -> str:
    """The name of a version's schema file."""
    return f"{version.path}.schema.json"


@cache
def definitions(version: FhirVersion) -> Mapping[str, Any]:
    """Every definition of the version's schema, by name."""
    content = (SCHEMA_FOLDER / schema_file(version)).read_bytes()
    found: Mapping[str, Any] = orjson.loads(content)["definitions"]
    return found


@cache
def resource_types(version: FhirVersion) -> frozenset[str]:
    """Every resource type of the version, also those that 1upHealth does not accept."""
    return frozenset(definitions(version)["Resource"]["properties"]["resourceType"]["enum"])


@cache
def _compiled(version: FhirVersion, resource_type: str) -> Draft4Validator:
    return Draft4Validator(
        {
            "$ref": _REF + resource_type,
            "definitions": _reachable(definitions(version), resource_type),
        },
        # Linear in the length of the text, whatever the record holds.
        pattern_options=RegexOptions(),
        mask="(a value)",  # messages show no value of the record
        offline=True,
    )


def validator(version: FhirVersion, resource_type: str) -> Draft4Validator:
    """The compiled schema of a resource type; from any thread.

    Compiling every type of a version takes about a second and 50 MB, so each is compiled when the
    first resource of it comes.
    """
    with _compiling:
        return _compiled(version, resource_type)


def _reachable(all_definitions: Mapping[str, Any], start: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    pending = [start]
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = all_definitions[name]
            pending.extend(_references(found[name]))
    return found


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for keyword, value in schema.items():
            if keyword == "$ref":
                yield value.removeprefix(_REF)
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)
