"""Only what the version defines is kept of a place that a server names."""

import re

import pytest

from uplift.fhir.element_paths import element_path
from uplift.fhir.versions import FhirVersion

R4, DSTU2 = FhirVersion.R4, FhirVersion.DSTU2


@pytest.mark.parametrize(
    ("version", "text", "path"),
    [
        (R4, "Patient", "Patient"),
        (R4, "Observation.note[1].text", "Observation.note[1].text"),
        (R4, "Patient.name[0].given[1]", "Patient.name[0].given[1]"),
        (
            R4,
            "Observation.component.valueQuantity.code",
            "Observation.component.valueQuantity.code",
        ),
        (R4, "Observation.value", "Observation.value"),
        (R4, "Observation.code.coding[12].system", "Observation.code.coding[12].system"),
        (R4, "Bundle.entry[3].resource", "Bundle.entry[3].resource"),
        (DSTU2, "/f:Patient/f:name[1]/f:given", "Patient.name[0].given"),
        (DSTU2, "/Patient/name", "Patient.name"),
        (DSTU2, "MedicationOrder.dispenseRequest", "MedicationOrder.dispenseRequest"),
    ],
)
def test_an_element_of_the_version_is_kept(version: FhirVersion, text: str, path: str) -> None:
    assert element_path(version, re.split(r"\W", path)[0], text) == path


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (R4, "MedicationOrder.status"),
        (DSTU2, "Condition.recordedDate"),
        (R4, "Patient.nickname"),
        (R4, "Patient.name.Canary"),
        (R4, "Patient.name.given.Canary"),
        (R4, "Observation.value.ofType(Quantity).code"),
        (R4, "Observation.value.canary"),
        (R4, "Patient.name.where(family='Canary')"),
        (R4, "Patient.name[Canary]"),
        (R4, "Patient.name[1955]"),
        (R4, "Observation.code[1].text"),
        (R4, "Observation.value[1]"),
        (R4, "Line 12, column 7: Canary"),
        (R4, "/f:Patient/f:name[f:family/@value='Canary']"),
        (R4, "Patient..name"),
        (R4, "Patient.name" + ".period" * 100),
        (R4, ""),
        (R4, None),
        (R4, {"Patient": "name"}),
    ],
)
def test_anything_else_is_dropped(version: FhirVersion, text: object) -> None:
    for resource_type in ("Patient", "Observation", "MedicationOrder", "Condition"):
        assert element_path(version, resource_type, text) is None


def test_another_type_than_the_uploads_is_dropped() -> None:
    assert element_path(R4, "Observation", "Patient.name") is None
