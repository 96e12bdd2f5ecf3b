"""HL7's definitions and examples, where they are present."""

import json
import os
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from uplift.fhir.versions import FhirVersion

FHIR_FOLDER = Path(
    os.environ.get("UPLIFT_FHIR_DIR") or Path(__file__).parents[3].parent / "shared" / "fhir"
)
DEFINITIONS = FHIR_FOLDER / "definitions"
EXAMPLES = FHIR_FOLDER / "examples"

needs_definitions = pytest.mark.skipif(
    not DEFINITIONS.is_dir(), reason=f"{DEFINITIONS} is not there"
)
needs_examples = pytest.mark.skipif(not EXAMPLES.is_dir(), reason=f"{EXAMPLES} is not there")


@cache
def examples(version: FhirVersion) -> dict[str, bytes]:
    """HL7's examples of a version, by file name."""
    found: dict[str, bytes] = {}
    with tarfile.open(EXAMPLES / f"{version.path}.tar.gz") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None:
                found[Path(member.name).name] = content.read()
    return dict(sorted(found.items()))


@cache
def structures(version: FhirVersion) -> dict[str, dict[str, Any]]:
    """HL7's StructureDefinitions of a version, by id."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(DEFINITIONS / f"{version.path}.tar.gz") as tar:
        for member in tar:
            content = tar.extractfile(member) if "/StructureDefinition-" in member.name else None
            if content is not None:
                structure = json.loads(content.read())
                if "snapshot" in structure:
                    found[structure["id"]] = structure
    return found
