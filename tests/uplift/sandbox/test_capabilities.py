import pytest

from uplift.sandbox import capabilities

HEALTHKIT = {
    "dstu2": "AllergyIntolerance Condition Immunization Observation Procedure MedicationOrder "
    "MedicationStatement DiagnosticReport DocumentReference Coverage",
    "r4": "AllergyIntolerance Condition Immunization Observation Procedure MedicationRequest "
    "MedicationStatement MedicationDispense DiagnosticReport DocumentReference Coverage",
}


@pytest.mark.parametrize(("version", "number"), [("dstu2", 94), ("stu3", 117), ("r4", 144)])
def test_each_version_serves_as_many_types_as_its_statement_lists(
    version: str, number: int
) -> None:
    assert len(capabilities.TYPES[version]) == number


@pytest.mark.parametrize("version", ["dstu2", "r4"])
def test_every_type_of_apple_health_can_be_written(version: str) -> None:
    for resource_type in HEALTHKIT[version].split():
        assert capabilities.is_known(version, resource_type)
        assert capabilities.may_write(version, resource_type)


def test_only_two_types_of_r4_cannot_be_written() -> None:
    refused = {
        (version, resource_type)
        for version, types in capabilities.TYPES.items()
        for resource_type in types
        if not capabilities.may_write(version, resource_type)
    }
    assert refused == {("r4", "Binary"), ("r4", "Provenance")}
