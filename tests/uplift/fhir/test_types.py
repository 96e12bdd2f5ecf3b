import json
from pathlib import Path

import pytest

from uplift.fhir.compiled import resource_types
from uplift.fhir.types import ONEUP_TYPES, SEARCHABLE_TYPES
from uplift.fhir.versions import FhirVersion

CAPABILITIES = Path(__file__).parents[3].parent / "shared" / "docs" / "oneup-capabilities.json"


@pytest.mark.skipif(not CAPABILITIES.is_file(), reason=f"{CAPABILITIES} is not there")
@pytest.mark.parametrize("version", FhirVersion)
def test_the_types_are_those_that_1uphealth_declares_a_create_of(version: FhirVersion) -> None:
    declared = json.loads(CAPABILITIES.read_bytes())["versions"][version.path]["types"]
    assert ONEUP_TYPES[version] == {
        name for name, of in declared.items() if "create" in of["interactions"]
    }


@pytest.mark.skipif(not CAPABILITIES.is_file(), reason=f"{CAPABILITIES} is not there")
@pytest.mark.parametrize("version", FhirVersion)
def test_the_types_that_can_be_searched_are_those_that_1uphealth_declares(
    version: FhirVersion,
) -> None:
    declared = json.loads(CAPABILITIES.read_bytes())["versions"][version.path]["types"]
    assert SEARCHABLE_TYPES[version] == {
        name for name, of in declared.items() if "search-type" in of["interactions"]
    }


@pytest.mark.parametrize("version", FhirVersion)
def test_every_type_that_can_be_created_has_a_schema(version: FhirVersion) -> None:
    assert ONEUP_TYPES[version] <= resource_types(version)


def test_the_counts_are_as_published() -> None:
    counts = [len(ONEUP_TYPES[version]) for version in FhirVersion]
    assert counts == [94, 117, 142]
    assert [len(SEARCHABLE_TYPES[version]) for version in FhirVersion] == [94, 117, 132]
