"""Records as hospitals leave them, under the default set: what is delivered, and what is not."""

import tomllib
from typing import Any

import orjson
import pytest

from tests.uplift.fhir.published import FHIR_FOLDER
from uplift.errors import UnreadableUpload
from uplift.fhir.findings import Kind
from uplift.fhir.tolerances import Tolerances
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion
from uplift.intake.labels import Labels
from uplift.intake.submission import parse

ALL = tuple(FhirVersion)
DSTU2, STU3, R4 = ALL
SINCE_STU3 = (STU3, R4)

CASES = FHIR_FOLDER.parent / "cases" / "hospital"

Resource = dict[str, Any]

OBSERVATION: Resource = {"resourceType": "Observation", "status": "final", "code": {"text": "a"}}
PATIENT: Resource = {"resourceType": "Patient", "active": True}
ORDER: Resource = {
    "resourceType": "MedicationOrder",
    "patient": {"reference": "Patient/p1"},
    "medicationReference": {"reference": "Medication/m1"},
}
REQUEST: Resource = {
    "resourceType": "MedicationRequest",
    "intent": "order",
    "subject": {"reference": "Patient/p1"},
    "medicationReference": {"reference": "Medication/m1"},
}
REPEATS = "dispenseRequest.numberOfRepeatsAllowed"
NO_REFILLS: Resource = {"dispenseRequest": {"numberOfRepeatsAllowed": 0}}
MARITAL_STATUS = "http://hl7.org/fhir/ValueSet/marital-status"
CLINICAL = "http://hl7.org/fhir/ValueSet/condition-clinical"
OUTCOME = "http://hl7.org/fhir/ValueSet/adverse-event-outcome"


def married(*codings: Resource) -> Resource:
    return {**PATIENT, "maritalStatus": {"text": "Single", "coding": list(codings)}}


def problem(*codings: Resource) -> Resource:
    return {
        "resourceType": "Condition",
        "subject": {"reference": "Patient/p1"},
        "clinicalStatus": {"coding": list(codings)},
    }


def adverse_event(*codings: Resource) -> Resource:
    return {"resourceType": "AdverseEvent", "outcome": {"coding": list(codings)}}


def narrative(**text: Any) -> Resource:
    return {**OBSERVATION, "text": text}


DELIVERED: list[tuple[tuple[FhirVersion, ...], Resource, Kind, str]] = [
    # zero where the least is 1
    ((DSTU2,), {**ORDER, **NO_REFILLS}, Kind.ZERO_WHERE_POSITIVE, REPEATS),
    ((STU3,), {**REQUEST, **NO_REFILLS}, Kind.ZERO_WHERE_POSITIVE, REPEATS),
    (ALL, {**PATIENT, "telecom": [{"value": "1"}, {"value": "2", "rank": 0}]},
     Kind.ZERO_WHERE_POSITIVE, "telecom[1].rank"),
    # empty objects, arrays and strings, in any place and of any type
    ((DSTU2,), {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "a"},
                "performer": {}}, Kind.EMPTY_OBJECT, "performer"),
    (ALL, {**OBSERVATION, "performer": {}}, Kind.EMPTY_OBJECT, "performer"),
    (ALL, {**OBSERVATION, "performer": [{"display": "a"}, {}]}, Kind.EMPTY_OBJECT, "performer[1]"),
    (ALL, {**OBSERVATION, "contained": [{}]}, Kind.EMPTY_OBJECT, "contained[0]"),
    (ALL, {**OBSERVATION, "subject": []}, Kind.EMPTY_ARRAY, "subject"),
    (ALL, {**OBSERVATION, "performer": []}, Kind.EMPTY_ARRAY, "performer"),
    (ALL, {**OBSERVATION, "code": {"text": "a", "coding": []}}, Kind.EMPTY_ARRAY, "code.coding"),
    (ALL, {**OBSERVATION, "code": {"coding": [{"code": "1", "display": ""}]}}, Kind.EMPTY_STRING,
     "code.coding[0].display"),
    (ALL, {**OBSERVATION, "effectiveDateTime": ""}, Kind.EMPTY_STRING, "effectiveDateTime"),
    (ALL, {**OBSERVATION, "valueQuantity": {"value": 1, "unit": " \t\r\n"}}, Kind.EMPTY_STRING,
     "valueQuantity.unit"),
    (ALL, {**OBSERVATION, "subject": {"reference": "", "display": "a"}}, Kind.EMPTY_STRING,
     "subject.reference"),
    (ALL, {**PATIENT, "active": "", "gender": "male"}, Kind.EMPTY_STRING, "active"),
    (ALL, {**PATIENT, "name": [{"given": ["Ann", ""]}]}, Kind.EMPTY_STRING, "name[0].given[1]"),
    (ALL, {**PATIENT, "id": ""}, Kind.EMPTY_STRING, "id"),
    # one empty value of two in a choice
    (ALL, {**OBSERVATION, "valueString": "a", "valueQuantity": {}}, Kind.EMPTY_OBJECT,
     "valueQuantity"),
    # the right code under the address of the value set
    ((DSTU2,), married({"system": MARITAL_STATUS, "code": "S"}), Kind.VALUE_SET_AS_SYSTEM,
     "maritalStatus"),
    ((R4,), problem({"system": CLINICAL, "code": "active"}), Kind.VALUE_SET_AS_SYSTEM,
     "clinicalStatus"),
    ((R4,), problem({"system": f"{CLINICAL}|4.0.1", "code": "active"}), Kind.VALUE_SET_AS_SYSTEM,
     "clinicalStatus"),
    ((R4,), problem({"system": "urn:x", "code": "1"}, {"system": CLINICAL, "code": "active"}),
     Kind.VALUE_SET_AS_SYSTEM, "clinicalStatus"),
    ((STU3,), adverse_event({"system": OUTCOME, "code": "resolved"}), Kind.VALUE_SET_AS_SYSTEM,
     "outcome"),
    # a date with a time
    ((DSTU2,), {"resourceType": "Condition", "dateRecorded": "2015-05-06T07:08:09Z"},
     Kind.DATE_WITH_TIME, "dateRecorded"),
    (ALL, {**PATIENT, "birthDate": "1970-01-01T00:00:00.000-05:00"}, Kind.DATE_WITH_TIME,
     "birthDate"),
    (ALL, {**PATIENT, "birthDate": "1970-01-01T00:00:00"}, Kind.DATE_WITH_TIME, "birthDate"),
    # a dateTime without a zone
    (ALL, {**OBSERVATION, "effectiveDateTime": "2014-01-02T03:04:05"}, Kind.DATETIME_WITHOUT_ZONE,
     "effectiveDateTime"),
    (ALL, {**OBSERVATION, "effectivePeriod": {"start": "2014-01-02T03:04:05.123"}},
     Kind.DATETIME_WITHOUT_ZONE, "effectivePeriod.start"),
    ((DSTU2,), {**OBSERVATION, "issued": "2014-01-02T03:04:05"}, Kind.INSTANT_WITHOUT_ZONE,
     "issued"),
    # an empty or garbage narrative
    (ALL, narrative(status="generated", div=""), Kind.BAD_NARRATIVE, "text.div"),
    (ALL, narrative(status="generated", div=" \n"), Kind.BAD_NARRATIVE, "text.div"),
    (ALL, narrative(status="generated", div="<div/>"), Kind.BAD_NARRATIVE, "text.div"),
    (ALL, narrative(status="generated", div="<p>{{name}"), Kind.BAD_NARRATIVE, "text.div"),
    (ALL, narrative(status="generated", div="a\x07"), Kind.BAD_NARRATIVE, "text.div"),
    (ALL, narrative(status="empty"), Kind.BAD_NARRATIVE, "text.div"),
    (ALL, narrative(div="<div>a</div>"), Kind.BAD_NARRATIVE, "text.status"),
    (ALL, narrative(), Kind.EMPTY_OBJECT, "text"),
]  # fmt: skip

REJECTED: list[tuple[tuple[FhirVersion, ...], Resource, str]] = [
    # near zero
    (ALL, {**PATIENT, "telecom": [{"value": "1", "rank": -1}]}, "telecom[0].rank"),
    (ALL, {**PATIENT, "telecom": [{"value": "1", "rank": "0"}]}, "telecom[0].rank"),
    (ALL, {**PATIENT, "telecom": [{"value": "1", "rank": 0.0}]}, "telecom[0].rank"),
    (ALL, {**PATIENT, "telecom": [{"value": "1", "rank": False}]}, "telecom[0].rank"),
    # empty, but required: it counts as absent
    (SINCE_STU3, {**OBSERVATION, "status": ""}, "status"),
    (SINCE_STU3, {**OBSERVATION, "code": {}}, "code"),
    (SINCE_STU3, {**OBSERVATION, "code": []}, "code"),
    (SINCE_STU3, {**OBSERVATION, "code": {"coding": [{"system": "", "display": " "}]}}, "code"),
    (ALL, {**OBSERVATION, "contained": [{"resourceType": "", "id": "a"}]},
     "contained[0].resourceType"),
    # null is no empty value
    (ALL, {**OBSERVATION, "subject": None}, "subject"),
    (ALL, {**OBSERVATION, "performer": [None]}, "performer[0]"),
    # a wrong code, or another value set
    ((DSTU2,), married({"system": MARITAL_STATUS, "code": "X"}), "maritalStatus"),
    ((R4,), problem({"system": CLINICAL, "code": "nope"}), "clinicalStatus"),
    ((R4,), problem({"system": CLINICAL.replace("-clinical", "-ver-status"), "code": "active"}),
     "clinicalStatus"),
    ((R4,), problem({"system": "urn:condition-clinical", "code": "active"}), "clinicalStatus"),
    ((STU3,), adverse_event({"system": OUTCOME, "code": "nope"}), "outcome"),
    # no date at all
    (ALL, {**PATIENT, "birthDate": "1970-02-30T00:00:00Z"}, "birthDate"),
    (ALL, {**PATIENT, "birthDate": "01/02/1970"}, "birthDate"),
    (ALL, {**PATIENT, "birthDate": "1970-01-01 00:00:00"}, "birthDate"),
    (ALL, {**OBSERVATION, "effectiveDateTime": "2014-01-02T25:04:05"}, "effectiveDateTime"),
    (ALL, {**OBSERVATION, "effectiveDateTime": "2014-01-02T03:04"}, "effectiveDateTime"),
    (SINCE_STU3, {**OBSERVATION, "issued": "2014-01-02T03:04:05"}, "issued"),
    # no narrative at all
    (ALL, {**OBSERVATION, "text": "a"}, "text"),
    (ALL, narrative(status="generated", div=5), "text.div"),
    # two meanings
    (ALL, {**OBSERVATION, "valueString": "a", "valueQuantity": {"value": 1}}, "value[x]"),
]  # fmt: skip


def each_version(rows: list[Any]) -> list[Any]:
    return [
        pytest.param(version, resource, *rest, id=f"{version}-{rest[-1]}")
        for versions, resource, *rest in rows
        for version in versions
    ]


@pytest.mark.parametrize(("version", "resource", "kind", "at"), each_version(DELIVERED))
def test_what_a_reader_understands_is_delivered_with_a_warning(
    version: FhirVersion, resource: Resource, kind: Kind, at: str
) -> None:
    body, place = orjson.dumps(resource), f"{resource['resourceType']}.{at}"
    report = validate(body, version)
    assert report.valid
    assert place in {issue.expression for issue in report.issues}
    alone = Tolerances.named("lenient").overridden(f"{kind}=error")
    refused = validate(body, version, tolerances=alone)
    assert [issue.expression for issue in refused.issues if issue.refuses] == [place]


@pytest.mark.parametrize(("version", "resource", "at"), each_version(REJECTED))
def test_what_is_near_a_deviation_and_cannot_be_understood_is_rejected(
    version: FhirVersion, resource: Resource, at: str
) -> None:
    report = validate(orjson.dumps(resource), version)
    assert f"{resource['resourceType']}.{at}" in {
        issue.expression for issue in report.issues if issue.refuses
    }


@pytest.mark.parametrize("version", FhirVersion)
@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"id": "o-1", "meta": {"versionId": "1"}, "language": "en"},
        {"identifier": [{"system": "urn:x", "value": "1"}]},
        {"text": {"status": "generated", "div": "<div>a</div>"}},
        {"extension": [{"url": "urn:x:y", "valueString": "a"}]},
        {"status": "", "code": {}, "component": [{"code": {"coding": []}}]},
        {"_id": {"id": "a"}},
    ],
)
@pytest.mark.parametrize("resource_type", ["Observation", "Patient"])
def test_a_resource_without_content_is_rejected_even_by_lenient(
    version: FhirVersion, beside: Resource, resource_type: str
) -> None:
    body = orjson.dumps({"resourceType": resource_type, **beside})
    for tolerances in (Tolerances.named("default"), Tolerances.named("lenient")):
        report = validate(body, version, tolerances=tolerances)
        assert not report.valid
        assert report.issues[0].expression == resource_type
        assert not report.too_complex


@pytest.mark.parametrize("version", FhirVersion)
def test_a_device_may_be_no_more_than_its_identifier(version: FhirVersion) -> None:
    device: Resource = {"resourceType": "Device", "type": {"text": "a"}, "identifier": [{}]}
    assert validate(orjson.dumps(device), version).valid
    named = {"resourceType": "Device", "identifier": [{"system": "urn:x", "value": "1"}]}
    assert "Device" not in {
        each.expression for each in validate(orjson.dumps(named), version).issues
    }
    assert not validate(b'{"resourceType":"Device","identifier":[{}]}', version).valid


def test_a_name_that_is_there_twice_is_refused_at_the_door() -> None:
    body = b'{"resourceType":"Observation","status":"entered-in-error","status":"final"}'
    with pytest.raises(UnreadableUpload, match="twice"):
        parse(body, Labels(fhir_version="R4"))


@pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is not there")
def test_every_shared_case_comes_to_what_it_says() -> None:
    cases = tomllib.loads((CASES / "cases.toml").read_text(encoding="utf-8"))
    assert len(cases) == len(list(CASES.glob("*.json")))
    assert {name: came_to(name, case) for name, case in cases.items()} == {
        name: (case["outcome"], case.get("at")) for name, case in cases.items()
    }


def came_to(name: str, case: dict[str, Any]) -> tuple[str, str | None]:
    body = (CASES / f"{name}.json").read_bytes()
    version = case.get("version", "R4")
    try:
        parse(body, Labels(fhir_version=version))
    except UnreadableUpload:
        return "refused_at_door", None
    report = validate(body, version)
    return "delivered" if report.valid else "rejected", report.issues[0].expression
