from typing import Any

import orjson
import pytest

from uplift.errors import ConfigurationError
from uplift.fhir.deviations import CATALOGUE
from uplift.fhir.findings import Kind
from uplift.fhir.tolerances import DEFAULT_TOLERANCES, Tolerances
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion

STRICT, LENIENT = Tolerances.named("strict"), Tolerances.named("lenient")

OBSERVATION = {"resourceType": "Observation", "status": "final", "code": {"text": "Weight"}}
PATIENT = {"resourceType": "Patient", "active": True}
CONDITION = {
    "resourceType": "Condition",
    "subject": {"reference": "Patient/1"},
    "code": {"text": "Asthma"},
}
ALLERGY = {"resourceType": "AllergyIntolerance", "patient": {"reference": "Patient/1"}}
ACTIVE = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/condition-clinical",
            "code": "active",
        }
    ]
}
GLUCOSE = {"coding": [{"system": "http://loinc.org", "code": "2339-0"}]}


def in_error(of: str) -> dict[str, Any]:
    system = f"http://terminology.hl7.org/CodeSystem/{of}"
    return {"coding": [{"system": system, "code": "entered-in-error"}]}


ONE_DEVIATION: dict[Kind, dict[str, Any]] = {
    Kind.ZERO_WHERE_POSITIVE: {**PATIENT, "telecom": [{"value": "1", "rank": 0}]},
    Kind.EMPTY_OBJECT: {**PATIENT, "maritalStatus": {}},
    Kind.EMPTY_ARRAY: {**PATIENT, "name": []},
    Kind.EMPTY_STRING: {**PATIENT, "name": [{"text": "Ann", "family": " "}]},
    Kind.VALUE_SET_AS_SYSTEM: {
        **CONDITION,
        "clinicalStatus": {
            "coding": [
                {"system": "http://hl7.org/fhir/ValueSet/condition-clinical", "code": "active"}
            ]
        },
    },
    Kind.DATE_WITH_TIME: {**PATIENT, "birthDate": "1970-01-01T00:00:00Z"},
    Kind.DATETIME_WITHOUT_ZONE: {**OBSERVATION, "effectiveDateTime": "2019-03-01T10:00:00"},
    Kind.INSTANT_WITHOUT_ZONE: {**OBSERVATION, "issued": "2019-03-01T10:00:00"},
    Kind.BAD_NARRATIVE: {**OBSERVATION, "text": {"status": "generated", "div": "text"}},
    Kind.ID_TOO_LONG: {**OBSERVATION, "id": "a" * 65},
    Kind.ID_WITH_UNDERSCORE: {**OBSERVATION, "id": "a_1"},
    Kind.MISSING_REQUIRED: {"resourceType": "Observation", "status": "final"},
    Kind.UNKNOWN_ELEMENT: {**OBSERVATION, "colour": "blue"},
    Kind.CODE_OUTSIDE_BINDING: {**OBSERVATION, "status": "finished"},
    Kind.REFERENCE_TARGET: {**OBSERVATION, "subject": {"reference": "Slot/1"}},
    Kind.PERIOD_REVERSED: {
        **OBSERVATION,
        "effectivePeriod": {"start": "2020-02-02", "end": "2020-01-01"},
    },
    Kind.OBS_6: {**OBSERVATION, "valueString": "a", "dataAbsentReason": {"text": "a"}},
    Kind.OBS_7: {
        **OBSERVATION,
        "code": GLUCOSE,
        "valueString": "a",
        "component": [{"code": GLUCOSE, "valueString": "b"}],
    },
    Kind.CON_1: {**CONDITION, "stage": [{"type": {"text": "a"}}]},
    Kind.CON_2: {**CONDITION, "evidence": [{"id": "a"}]},
    Kind.CON_3: {**CONDITION, "category": [{"coding": [{"code": "problem-list-item"}]}]},
    Kind.CON_4: {**CONDITION, "clinicalStatus": ACTIVE, "abatementDateTime": "2019"},
    Kind.CON_5: {
        **CONDITION,
        "clinicalStatus": ACTIVE,
        "verificationStatus": in_error("condition-ver-status"),
    },
    Kind.AIT_1: ALLERGY,
    Kind.AIT_2: {
        **ALLERGY,
        "clinicalStatus": {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical",
                    "code": "active",
                }
            ]
        },
        "verificationStatus": in_error("allergyintolerance-verification"),
    },
    Kind.DOM_2: {
        **PATIENT,
        "managingOrganization": {"reference": "#a"},
        "contained": [
            {
                "resourceType": "Organization",
                "id": "a",
                "active": True,
                "partOf": {"reference": "#a"},
                "contained": [{"resourceType": "Organization", "active": True}],
            }
        ],
    },
    Kind.DOM_3: {
        **PATIENT,
        "contained": [{"resourceType": "Organization", "id": "a", "active": True}],
    },
    Kind.REF_1: {**PATIENT, "managingOrganization": {"reference": "#a"}},
    Kind.EXT_1: {**PATIENT, "extension": [{"url": "urn:x:y"}]},
    Kind.ATT_1: {**PATIENT, "photo": [{"data": "QQ=="}]},
}
"""An R4 resource for each kind, with nothing else wrong."""


def severities(resource: dict[str, Any], version: str, tolerances: Tolerances) -> list[str]:
    report = validate(orjson.dumps(resource), version, tolerances=tolerances, second_opinion=False)
    return [issue.severity for issue in report.issues]


def test_every_deviation_is_in_the_catalogue_once() -> None:
    kinds = [each.kind for each in CATALOGUE]
    never_tolerated = [Kind.STRUCTURE, Kind.VALUE, Kind.NO_CONTENT]
    assert sorted([*kinds, *never_tolerated]) == sorted(Kind)
    assert ONE_DEVIATION.keys() == set(kinds)


@pytest.mark.parametrize("kind", ONE_DEVIATION)
def test_a_deviation_is_an_error_or_a_warning_as_its_set_says(kind: Kind) -> None:
    resource = ONE_DEVIATION[kind]
    by_default = "warning" if DEFAULT_TOLERANCES.tolerates(kind, FhirVersion.R4) else "error"
    assert severities(resource, "R4", STRICT) == ["error"]
    assert severities(resource, "R4", DEFAULT_TOLERANCES) == [by_default]
    assert severities(resource, "R4", LENIENT) == ["warning"]


@pytest.mark.parametrize("kind", ONE_DEVIATION)
def test_a_single_kind_is_overridden_in_both_directions(kind: Kind) -> None:
    resource = ONE_DEVIATION[kind]
    assert severities(resource, "R4", STRICT.overridden(f"{kind}=warning")) == ["warning"]
    assert severities(resource, "R4", LENIENT.overridden(f"{kind}=error")) == ["error"]


def test_the_default_set_is_the_documented_one() -> None:
    errors = {
        version: {
            each.kind for each in CATALOGUE if not DEFAULT_TOLERANCES.tolerates(each.kind, version)
        }
        for version in FhirVersion
    }
    everywhere = {Kind.UNKNOWN_ELEMENT, Kind.CODE_OUTSIDE_BINDING}
    since_stu3 = everywhere | {Kind.INSTANT_WITHOUT_ZONE, Kind.MISSING_REQUIRED}
    assert errors == {
        FhirVersion.DSTU2: everywhere,
        FhirVersion.STU3: since_stu3,
        FhirVersion.R4: since_stu3,
    }


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("version", FhirVersion)
def test_strict_tolerates_nothing(kind: Kind, version: FhirVersion) -> None:
    assert not STRICT.tolerates(kind, version)


@pytest.mark.parametrize("kind", [Kind.STRUCTURE, Kind.VALUE, Kind.NO_CONTENT])
@pytest.mark.parametrize("version", FhirVersion)
def test_lenient_never_tolerates_what_has_no_content_or_cannot_be_read(
    kind: Kind, version: FhirVersion
) -> None:
    assert not LENIENT.tolerates(kind, version)


def test_overrides_are_read_with_spaces_and_the_last_one_counts() -> None:
    read = STRICT.overridden(" obs-6=warning , id_too_long = warning,,obs-6=error")
    assert read == STRICT.overridden("id_too_long=warning")
    assert STRICT.overridden("") == STRICT


@pytest.mark.parametrize(
    "text",
    ["colour=warning", "structure=warning", "no_content=warning", "obs-6", "obs-6=true", "="],
)
def test_an_override_that_cannot_be_is_a_wrong_setting(text: str) -> None:
    with pytest.raises(ConfigurationError, match="UPLIFT_TOLERANCE_OVERRIDES"):
        STRICT.overridden(text)


def test_an_id_may_be_too_long_and_have_an_underscore_at_once() -> None:
    assert severities({**OBSERVATION, "id": "a_" * 40}, "R4", DEFAULT_TOLERANCES) == ["warning"] * 2


def test_the_type_of_a_contained_resource_is_required_even_where_elements_are_not() -> None:
    body = orjson.dumps({**CONDITION, "contained": [{"id": "a"}]})
    report = validate(body, "DSTU2")
    assert not report.valid
    assert "Condition.contained[0].resourceType" in {
        issue.expression for issue in report.issues if issue.refuses
    }
