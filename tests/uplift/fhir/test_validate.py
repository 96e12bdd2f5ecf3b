from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from uplift.fhir.compiled import resource_types
from uplift.fhir.types import NO_RECORDS, ONEUP_TYPES, RELAYED_TYPES
from uplift.fhir.validate import DESCRIBED_FINDINGS, validate
from uplift.fhir.versions import FhirVersion

OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "Weight"},
}
PATIENT: dict[str, Any] = {"resourceType": "Patient"}


def first(resource: Any, version: str = "R4") -> tuple[str, str, str]:
    body = resource if isinstance(resource, bytes) else orjson.dumps(resource)
    issue = validate(body, version).issues[0]
    return issue.severity, issue.code, issue.expression


@pytest.mark.parametrize(
    ("body", "version", "code"),
    [
        (b"", "R4", "structure"),
        (b"{", "R4", "structure"),
        (b"[]", "R4", "structure"),
        (b'"text"', "R4", "structure"),
        (b"null", "R4", "structure"),
        (b"{}", "R4", "structure"),
        (b'{"resourceType":null}', "R4", "structure"),
        (b'{"resourceType":["Patient"]}', "R4", "structure"),
        (b'{"resourceType":""}', "R4", "structure"),
        (b'\xef\xbb\xbf{"resourceType":"Patient"}', "R4", "structure"),
        (b'{"resourceType":"Patient","language":"\xff"}', "R4", "structure"),
        (b'{"resourceType":"Patient","language":"\\ud800"}', "R4", "structure"),
        (b'{"resourceType":"Patient","language":"a\\u0000"}', "R4", "structure"),
        (b'{"resourceType":"Patient","a\\u0000":1}', "R4", "structure"),
        (
            b'{"resourceType":"Patient","extension":' + b"[" * 70 + b"]" * 70 + b"}",
            "R4",
            "structure",
        ),
        (b'{"resourceType":"Patient","extension":' + b"[" * 9000, "R4", "structure"),
        (b'{"resourceType":"Patient","multipleBirthInteger":1e400}', "R4", "structure"),
        (b'{"resourceType":"Patient","multipleBirthInteger":NaN}', "R4", "structure"),
        (b'{"resourceType":"Pateint"}', "R4", "not-supported"),
        (b'{"resourceType":"MedicationOrder"}', "R4", "not-supported"),
        (b'{"resourceType":"MedicationRequest"}', "DSTU2", "not-supported"),
        (b'{"resourceType":"Parameters"}', "STU3", "not-supported"),
        (b'{"resourceType":"OperationOutcome"}', "DSTU2", "not-supported"),
        (b'{"resourceType":"Resource"}', "R4", "not-supported"),
        (b'{"resourceType":"DomainResource"}', "R4", "not-supported"),
        (b'{"resourceType":"Patient"}', "R5", "not-supported"),
        (b'{"resourceType":"Patient"}', "", "not-supported"),
    ],
)
def test_what_cannot_be_judged_is_fatal(body: bytes, version: str, code: str) -> None:
    report = validate(body, version)
    assert first(body, version)[:2] == ("fatal", code)
    assert report.total == 1
    assert not report.valid


BINARY = {"resourceType": "Binary", "contentType": "text/plain", "data": "YQ=="}
PROVENANCE = {
    "resourceType": "Provenance",
    "target": [{"reference": "Observation/1"}],
    "recorded": "2026-01-01T00:00:00Z",
    "agent": [{"who": {"display": "A hospital"}}],
}
_OF_1UPHEALTH = "The destination takes no resource of this type"
_OF_AN_OPERATION = "no record of a person"
_OF_NO_VERSION = "not a resource type of R4"


@pytest.mark.parametrize(
    ("resource", "anywhere", "at_1uphealth"),
    [
        (PATIENT | {"active": True}, None, None),
        (BINARY, None, _OF_1UPHEALTH),
        (PROVENANCE, None, _OF_1UPHEALTH),
        ({"resourceType": "Parameters"}, _OF_AN_OPERATION, _OF_AN_OPERATION),
        ({"resourceType": "OperationOutcome"}, _OF_AN_OPERATION, _OF_AN_OPERATION),
        ({"resourceType": "MedicationOrder"}, _OF_NO_VERSION, _OF_NO_VERSION),
        ({"resourceType": "binary"}, _OF_NO_VERSION, _OF_NO_VERSION),
    ],
)
def test_a_type_is_refused_for_what_fhir_says_of_it_and_for_what_its_destination_takes(
    resource: dict[str, Any], anywhere: str | None, at_1uphealth: str | None
) -> None:
    for taken, why in ((RELAYED_TYPES, anywhere), (ONEUP_TYPES, at_1uphealth)):
        report = validate(orjson.dumps(resource), "R4", taken=taken)
        said = [each.diagnostics for each in report.issues if each.refuses]
        assert len(said) == (why is not None), said
        assert (why or "") in "".join(said)


@pytest.mark.parametrize("version", FhirVersion)
def test_every_type_of_a_version_is_relayed_but_what_is_no_record(version: FhirVersion) -> None:
    assert RELAYED_TYPES[version] == resource_types(version) - NO_RECORDS
    assert resource_types(version) > NO_RECORDS
    missing = RELAYED_TYPES[version] - ONEUP_TYPES[version]
    assert missing == ({"Binary", "Provenance"} if version is FhirVersion.R4 else set())


@pytest.mark.parametrize(
    ("resource", "code", "expression"),
    [
        ({**OBSERVATION, "colour": 1}, "structure", "Observation.colour"),
        ({**OBSERVATION, "Ann Smith": 1}, "structure", "Observation"),
        ({**OBSERVATION, "code": {"txet": "a"}}, "structure", "Observation.code.txet"),
        ({**OBSERVATION, "code": "text"}, "structure", "Observation.code"),
        ({**OBSERVATION, "code": [{"text": "a"}]}, "structure", "Observation.code"),
        ({**OBSERVATION, "code": {}}, "required", "Observation.code"),
        ({**OBSERVATION, "code": None}, "structure", "Observation.code"),
        ({**OBSERVATION, "category": {"text": "a"}}, "structure", "Observation.category"),
        ({**OBSERVATION, "category": [None]}, "structure", "Observation.category[0]"),
        ({**OBSERVATION, "status": {"a": 1}}, "structure", "Observation.status"),
        (
            {**OBSERVATION, "valueString": "a", "valueInteger": 1},
            "structure",
            "Observation.value[x]",
        ),
        (
            {**OBSERVATION, "valueString": "a", "_valueInteger": {"id": "a"}},
            "structure",
            "Observation.value[x]",
        ),
        ({**OBSERVATION, "_status": "a"}, "structure", "Observation._status"),
        ({**OBSERVATION, "fhir_comments": ["a"]}, "structure", "Observation.fhir_comments"),
        ({**PATIENT, "name": [{"given": ["a", 1]}]}, "value", "Patient.name[0].given[1]"),
        ({**PATIENT, "name": [{"given": [None]}]}, "structure", "Patient.name[0].given[0]"),
        ({**PATIENT, "active": "true"}, "value", "Patient.active"),
        ({**PATIENT, "birthDate": "2019-02-30"}, "value", "Patient.birthDate"),
        ({**PATIENT, "gender": "f"}, "code-invalid", "Patient.gender"),
        ({**PATIENT, "gender": 1}, "value", "Patient.gender"),
        (
            {**OBSERVATION, "extension": [{"valueCode": "a"}]},
            "required",
            "Observation.extension[0].url",
        ),
        (
            {
                "resourceType": "Condition",
                "subject": {"reference": "Patient/1"},
                "clinicalStatus": {"coding": [{"system": "urn:x", "code": "active"}]},
            },
            "code-invalid",
            "Condition.clinicalStatus",
        ),
        (
            {
                "resourceType": "MedicationRequest",
                "status": "active",
                "intent": "order",
                "subject": {"reference": "Patient/1"},
            },
            "required",
            "MedicationRequest.medication[x]",
        ),
        (
            {**OBSERVATION, "contained": [{"id": "a"}]},
            "required",
            "Observation.contained[0].resourceType",
        ),
        (
            {**OBSERVATION, "contained": [{"resourceType": "Pateint"}]},
            "not-supported",
            "Observation.contained[0].resourceType",
        ),
        (
            {**OBSERVATION, "contained": [{"resourceType": ["Patient"]}]},
            "not-supported",
            "Observation.contained[0].resourceType",
        ),
        (
            {**OBSERVATION, "contained": [{"resourceType": "Patient", "gender": "f"}]},
            "code-invalid",
            "Observation.contained[0].gender",
        ),
        (
            {**OBSERVATION, "contained": [{"resourceType": "Provenance"}]},
            "required",
            "Observation.contained[0].target",
        ),
        (
            {
                "resourceType": "Bundle",
                "type": "collection",
                "entry": [{"resource": {**PATIENT, "contained": [{**PATIENT, "active": 1}]}}],
            },
            "value",
            "Bundle.entry[0].resource.contained[0].active",
        ),
    ],
)
def test_an_error_says_what_is_wrong_and_where(
    resource: dict[str, Any], code: str, expression: str
) -> None:
    assert first(resource) == ("error", code, expression)
    assert not validate(orjson.dumps(resource), "R4").valid


@pytest.mark.parametrize("name", ["status", "code"])
def test_a_required_element_is_asked_for_by_name(name: str) -> None:
    resource = {key: value for key, value in OBSERVATION.items() if key != name}
    assert first(resource) == ("error", "required", f"Observation.{name}")


def test_resources_inside_parameters_are_judged_at_any_level() -> None:
    part = {"name": "a", "resource": {**PATIENT, "active": 1}}
    inside = {"resourceType": "Parameters", "parameter": [{"name": "a", "part": [part]}]}
    body = {"resourceType": "Basic", "code": {"text": "a"}, "contained": [inside]}
    wanted = "Basic.contained[0].parameter[0].part[0].resource.active"
    assert wanted in [each.expression for each in validate(orjson.dumps(body), "STU3").issues]


@pytest.mark.parametrize(
    ("version", "resource"),
    [
        ("R4", OBSERVATION),
        ("R4", {**OBSERVATION, "_valueString": {"id": "a"}}),
        # A required primitive may be present only as its extension.
        (
            "R4",
            {
                "resourceType": "Immunization",
                "status": "completed",
                "vaccineCode": {"text": "a"},
                "patient": {"reference": "Patient/1"},
                "_occurrenceDateTime": {"extension": [{"url": "urn:x:y", "valueCode": "unknown"}]},
            },
        ),
        ("R4", {**PATIENT, "name": [{"given": [None, "a"], "_given": [{"id": "a"}, None]}]}),
        ("R4", {**OBSERVATION, "subject": {"reference": "urn:uuid:1"}}),
        ("R4", {**OBSERVATION, "subject": {"reference": "Patient?identifier=1"}}),
        ("R4", {**OBSERVATION, "subject": {"reference": "https://a.example/r4/Patient/1"}}),
        ("STU3", {**OBSERVATION, "fhir_comments": ["a"]}),
        ("DSTU2", {**OBSERVATION, "fhir_comments": ["a"]}),
        ("DSTU2", {**OBSERVATION, "component": [{"code": {"text": "a"}, "valueString": "a"}]}),
        # nameReference: a component's referenceRange is the observation's.
        (
            "DSTU2",
            {
                **OBSERVATION,
                "component": [{"code": {"text": "a"}, "referenceRange": [{"text": "low"}]}],
            },
        ),
    ],
)
def test_what_is_legal_passes_without_an_issue(version: str, resource: dict[str, Any]) -> None:
    assert [
        issue
        for issue in validate(orjson.dumps(resource), version).issues
        if issue.code != "library-disagreement"
    ] == []


def test_twenty_thousand_bad_names_make_fifty_issues_and_a_total() -> None:
    body = orjson.dumps({**PATIENT, **{f"bad{index}": 1 for index in range(20_000)}})
    report = validate(body, "R4")
    assert len(report.issues) == 50
    assert report.total == 20_000


def test_a_document_that_is_wrong_throughout_is_described_in_part() -> None:
    body = orjson.dumps({**PATIENT, "name": [1] * 40_000})
    report = validate(body, "R4")
    assert not report.valid
    assert not report.too_complex
    assert len(report.issues) == 50
    assert report.total == DESCRIBED_FINDINGS + 1


def test_a_tolerated_defect_does_not_hide_an_error_far_behind_it() -> None:
    names = [{"given": ["a"]}] * 30_000
    body = orjson.dumps({**PATIENT, "id": "a_1", "name": [*names, {"given": "a"}]})
    assert not validate(body, "R4").valid


def test_a_valid_document_of_any_length_passes() -> None:
    body = orjson.dumps({**PATIENT, "name": [{"given": ["a"]}] * 30_000})
    assert validate(body, "R4").total == 0


@pytest.mark.parametrize("version", ["DSTU2", "STU3", "R4"])
def test_no_value_and_no_odd_name_of_a_record_is_repeated(version: str) -> None:
    secret = "Zq7-secret"
    record = {
        "resourceType": "Patient",
        "id": f"{secret} {secret}",
        f"{secret} name": {secret: secret},
        "active": secret,
        "birthDate": secret,
        "gender": secret,
        "name": [{"family": {secret: secret}, "given": secret, "period": secret}],
        "text": {"status": secret, "div": f"<{secret}"},
        "generalPractitioner": [{"reference": f"Slot/{secret}"}],
        "contained": [{"resourceType": secret}, {"resourceType": "Patient", secret: secret}],
        "extension": [{"url": f"{secret} {secret}", "valueInstant": secret}],
    }
    report = validate(orjson.dumps(record), version)
    assert report.total > 10
    assert secret.lower() not in orjson.dumps(report.to_json()).decode().lower()
    assert secret not in repr(validate(secret.encode(), version))
    assert secret not in repr(validate(orjson.dumps({"resourceType": secret}), version))
    assert secret not in repr(validate(orjson.dumps(record), secret))


def test_threads_share_the_compiled_schemas() -> None:
    bodies = [
        orjson.dumps({"resourceType": name, "colour": 1})
        for name in ("Goal", "Flag", "List", "Media", "Slot", "Group", "Task", "Basic")
    ] * 8
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda body: validate(body, "R4"), bodies))
    assert reports == [validate(body, "R4") for body in bodies]
