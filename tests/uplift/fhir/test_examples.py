import orjson
import pytest

from tests.uplift.fhir.published import examples, needs_examples
from uplift.fhir.tolerances import Tolerances
from uplift.fhir.types import HEALTHKIT_TYPES
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion

pytestmark = needs_examples

REALLY_INVALID = {
    # dispenseRequest.performer may be an Organization only; this names a Practitioner.
    (FhirVersion.R4, "MedicationRequest-medrx0301.json"),
    # performer can't be an Encounter.
    (FhirVersion.R4, "Observation-clinical-gender.json"),
    # It is abated and active.
    (FhirVersion.STU3, "Condition-f204.json"),
}
"""HL7's examples that break HL7's definitions.  All are tolerated by default."""


@pytest.mark.parametrize("version", FhirVersion)
def test_every_example_is_accepted(version: FhirVersion) -> None:
    refused = {
        file: report.issues
        for file, body in examples(version).items()
        if not (report := validate(body, version)).valid
    }
    assert refused == {}


@pytest.mark.parametrize("version", FhirVersion)
def test_with_every_tolerance_strict_only_what_is_really_invalid_is_refused(
    version: FhirVersion,
) -> None:
    refused = {
        (version, file)
        for file, body in examples(version).items()
        if not validate(body, version, tolerances=Tolerances.named("strict")).valid
    }
    assert refused == {each for each in REALLY_INVALID if each[0] is version}


@pytest.mark.parametrize("version", FhirVersion)
def test_an_example_in_hand_is_of_every_healthkit_type_of_the_version(
    version: FhirVersion,
) -> None:
    types = {orjson.loads(body)["resourceType"] for body in examples(version).values()}
    dstu2 = version is FhirVersion.DSTU2
    missing = {"MedicationRequest" if dstu2 else "MedicationOrder"}
    assert types >= HEALTHKIT_TYPES - missing


@pytest.mark.parametrize("version", FhirVersion)
def test_an_example_of_one_version_is_not_taken_for_another(version: FhirVersion) -> None:
    other = FhirVersion.R4 if version is FhirVersion.DSTU2 else FhirVersion.DSTU2
    bodies = examples(version).values()
    refused = sum(not validate(body, other).valid for body in bodies)
    assert refused > len(bodies) / 2
