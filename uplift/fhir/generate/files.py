"""Writes the schema files: one per version, one definition per line, so that diffs are short."""

import json
from collections.abc import Iterator
from pathlib import Path

from uplift.fhir.compiled import SCHEMA_FOLDER, schema_file
from uplift.fhir.generate.definitions import Definitions
from uplift.fhir.generate.primitives import Schema
from uplift.fhir.generate.structures import json_schema
from uplift.fhir.versions import FhirVersion


def write_schemas(definitions: Path, into: Path = SCHEMA_FOLDER) -> Iterator[Path]:
    """Write the schema of each version; yields the files.  Raises ConfigurationError."""
    for version in FhirVersion:
        path = into / schema_file(version)
        path.write_bytes(generated(definitions, version))
        yield path


def generated(definitions: Path, version: FhirVersion) -> bytes:
    """The schema file's content: the same bytes for the same definitions."""
    return _laid_out(json_schema(Definitions.read(definitions, version)))


def _laid_out(schema: Schema) -> bytes:
    lines = [
        f"{_compact(name)}:{_compact(definition)}"
        for name, definition in sorted(schema["definitions"].items())
    ]
    head = {name: value for name, value in schema.items() if name != "definitions"}
    return (f'{_compact(head)[:-1]},"definitions":{{\n' + ",\n".join(lines) + "\n}}\n").encode(
        "ascii"
    )


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
