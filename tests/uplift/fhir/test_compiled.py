import json
from itertools import pairwise

import pytest

from uplift.fhir.compiled import SCHEMA_FOLDER, definition, resource_types, schema_file, validator
from uplift.fhir.types import HEALTHKIT_TYPES
from uplift.fhir.versions import FhirVersion


@pytest.mark.parametrize("version", FhirVersion)
def test_each_definition_is_what_stands_in_the_schema_file(version: FhirVersion) -> None:
    whole = json.loads((SCHEMA_FOLDER / schema_file(version)).read_bytes())["definitions"]
    assert {name: definition(version, name) for name in whole} == whole


@pytest.mark.parametrize("version", FhirVersion)
def test_healthkits_types_share_one_compiled_schema(version: FhirVersion) -> None:
    types = sorted(HEALTHKIT_TYPES & resource_types(version))
    assert len(types) >= 11
    assert all(validator(version, a) is validator(version, b) for a, b in pairwise(types))
    assert validator(version, "Patient") is not validator(version, types[0])


def test_a_resource_under_the_name_of_another_type_is_refused() -> None:
    for resource_type in ("Observation", "Patient"):
        judge = validator(FhirVersion.R4, resource_type)
        assert not judge.is_valid({"Group": {"resourceType": "Group"}})
        assert not judge.is_valid({"Condition": {"resourceType": resource_type}})
    patient = {"resourceType": "Patient"}
    assert validator(FhirVersion.R4, "Patient").is_valid({"Patient": patient})
    assert not validator(FhirVersion.R4, "Patient").is_valid({"Group": patient})
