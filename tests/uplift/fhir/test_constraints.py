"""HL7's invariants. test_tolerances has one resource that breaks each; here are their borders."""

from typing import Any

import pytest

from uplift.fhir.constraints import RULES
from uplift.fhir.findings import Kind
from uplift.fhir.invariants import invariant_findings
from uplift.fhir.versions import FhirVersion

DSTU2, STU3, R4 = FhirVersion

Resource = dict[str, Any]

A = {"coding": [{"system": "urn:x", "code": "a"}]}
B = {"coding": [{"system": "urn:y", "code": "a"}, {"code": "b"}]}
IN_ERROR = {"coding": [{"code": "entered-in-error"}]}
RESOLVED = {"coding": [{"code": "resolved"}]}
LISTED = [{"coding": [{"code": "problem-list-item"}]}]
ORGANIZATION = {"resourceType": "Organization", "id": "o"}
AROUND = {**ORGANIZATION, "partOf": {"reference": "#"}}


def broken(resource_type: str, version: FhirVersion, **elements: Any) -> list[tuple[Kind, str]]:
    resource = {"resourceType": resource_type, **elements}
    return [
        (each.kind, each.expression.removeprefix(f"{resource_type}."))
        for each in invariant_findings(resource, resource_type, version)
    ]


@pytest.mark.parametrize("version", FhirVersion)
@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"valueString": "a"}, []),
        ({"dataAbsentReason": A}, []),
        ({"valueInteger": 0, "dataAbsentReason": A}, [(Kind.OBS_6, "dataAbsentReason")]),
        ({"_valueString": {"id": "a"}, "dataAbsentReason": A}, []),
        ({"code": A, "component": [{"code": A}]}, []),
        ({"code": A, "component": [{"code": B}], "valueString": "a"}, []),
        ({"code": A, "component": [{"code": B}, {"code": A}], "valueString": "a"},
         [(Kind.OBS_7, "component")]),
        ({"code": {"text": "a"}, "component": [{"code": {"text": "a"}}], "valueString": "a"}, []),
    ],
)  # fmt: skip
def test_an_observation_has_one_value_or_a_reason_for_none(
    version: FhirVersion, elements: Resource, expected: list[tuple[Kind, str]]
) -> None:
    assert broken("Observation", version, **elements) == expected


@pytest.mark.parametrize(
    ("version", "elements", "expected"),
    [
        (DSTU2, {"stage": {"summary": A}, "evidence": [{"detail": [{}]}]}, []),
        (DSTU2, {"stage": {"id": "a"}}, [(Kind.CON_1, "stage[0]")]),
        (DSTU2, {"evidence": [{"code": A}, {"id": "a"}]}, [(Kind.CON_2, "evidence[1]")]),
        (DSTU2, {"abatementDate": "2019", "verificationStatus": "entered-in-error"}, []),
        (STU3, {"clinicalStatus": "active"}, []),
        (STU3, {"_clinicalStatus": {"id": "a"}}, []),
        (STU3, {}, [(Kind.CON_3, "clinicalStatus")]),
        (STU3, {"verificationStatus": "entered-in-error"}, []),
        (STU3, {"clinicalStatus": "active", "verificationStatus": "entered-in-error"}, []),
        (STU3, {"clinicalStatus": "active", "abatementBoolean": False}, []),
        (STU3, {"clinicalStatus": "active", "abatementAge": {"value": 1}},
         [(Kind.CON_4, "clinicalStatus")]),
        (STU3, {"clinicalStatus": "remission", "abatementBoolean": True}, []),
        (R4, {}, []),
        (R4, {"category": LISTED}, [(Kind.CON_3, "clinicalStatus")]),
        (R4, {"category": LISTED, "verificationStatus": IN_ERROR}, []),
        (R4, {"clinicalStatus": RESOLVED, "abatementString": "a"}, []),
        (R4, {"abatementString": "a"}, [(Kind.CON_4, "clinicalStatus")]),
        (R4, {"clinicalStatus": RESOLVED, "verificationStatus": IN_ERROR},
         [(Kind.CON_5, "clinicalStatus")]),
    ],
)  # fmt: skip
def test_the_status_of_a_condition_fits_the_rest(
    version: FhirVersion, elements: Resource, expected: list[tuple[Kind, str]]
) -> None:
    assert broken("Condition", version, **elements) == expected


@pytest.mark.parametrize(
    ("version", "elements", "expected"),
    [
        (DSTU2, {}, []),
        (STU3, {}, [(Kind.AIT_1, "clinicalStatus")]),
        (STU3, {"clinicalStatus": "active"}, []),
        (STU3, {"verificationStatus": "entered-in-error"}, []),
        (R4, {"verificationStatus": IN_ERROR}, []),
        (R4, {"verificationStatus": IN_ERROR, "clinicalStatus": RESOLVED},
         [(Kind.AIT_2, "clinicalStatus")]),
        (R4, {"_clinicalStatus": {"id": "a"}}, []),
    ],
)  # fmt: skip
def test_an_allergy_has_a_status_unless_it_is_an_error(
    version: FhirVersion, elements: Resource, expected: list[tuple[Kind, str]]
) -> None:
    assert broken("AllergyIntolerance", version, **elements) == expected


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"contained": [ORGANIZATION], "performer": [{"reference": "#o"}]}, []),
        ({"contained": [ORGANIZATION], "instantiatesUri": "#o"}, []),
        ({"contained": [AROUND]}, []),
        ({"contained": [ORGANIZATION, {**AROUND, "id": "p"}]}, [(Kind.DOM_3, "contained[0]")]),
        ({"contained": [{"resourceType": "Organization"}]}, [(Kind.DOM_3, "contained[0]")]),
        ({"performer": [{"reference": "#o"}]}, [(Kind.REF_1, "performer[0].reference")]),
        ({"performer": [{"reference": "#"}, {"reference": "Patient/1#o"}]}, []),
        ({"contained": [ORGANIZATION], "note": "#o", "performer": [{"reference": "#p"}]},
         [(Kind.REF_1, "performer[0].reference")]),
        ({"contained": [{**AROUND, "contained": [AROUND]}]},
         [(Kind.DOM_2, "contained[0].contained")]),
        ({"contained": [{**ORGANIZATION, "endpoint": [{"reference": "#e"}]}],
          "performer": [{"reference": "#o"}]},
         [(Kind.REF_1, "contained[0].endpoint[0].reference")]),
        ({"contained": "a", "performer": {"reference": 1}}, []),
        ({"contained": [1, {"id": 2}]}, [(Kind.DOM_3, "contained[1]")]),
    ],
)  # fmt: skip
def test_contained_resources_and_local_references_belong_together(
    elements: Resource, expected: list[tuple[Kind, str]]
) -> None:
    assert broken("Procedure", R4, **elements) == expected


def test_a_resource_in_an_entry_has_contained_resources_of_its_own() -> None:
    inside = {**ORGANIZATION, "id": "a", "partOf": {"reference": "#o"}}
    right = {**inside, "contained": [ORGANIZATION]}
    assert broken("Bundle", R4, entry=[{"resource": right}]) == []
    assert broken("Bundle", R4, entry=[{"resource": right}, {"resource": inside}]) == [
        (Kind.REF_1, "entry[1].resource.partOf.reference")
    ]


@pytest.mark.parametrize("name", ["extension", "modifierExtension"])
@pytest.mark.parametrize(
    ("extension", "fine"),
    [
        ({"url": "urn:x", "valueBoolean": False}, True),
        ({"url": "urn:x", "_valueString": {"id": "a"}}, True),
        ({"url": "urn:x", "extension": [{"url": "y", "valueCode": "a"}]}, True),
        ({"url": "urn:x"}, False),
        ({"url": "urn:x", "valueCode": "a", "extension": [{"url": "y", "valueCode": "a"}]}, False),
    ],
)
def test_an_extension_has_a_value_or_extensions(name: str, extension: Resource, fine: bool) -> None:
    found = broken("Basic", R4, code={"coding": [{name: [extension]}]})
    assert found == ([] if fine else [(Kind.EXT_1, f"code.coding[0].{name}[0]")])


@pytest.mark.parametrize(
    ("value", "fine"),
    [
        ({"data": "QQ==", "contentType": "text/plain"}, True),
        ({"url": "https://a.example/b"}, True),
        ({"data": "QQ==", "_title": {"id": "a"}}, False),
        ({"data": "QQ==", "contentType": " "}, False),
        ({"data": "1 2", "origin": {"value": 0}, "period": 1, "dimensions": 1}, True),
        ({"data": "QQ==", "when": "2019-01-01T00:00:00Z"}, True),
        ({"data": {"start": "2019"}, "period": {"start": "2019"}}, True),
    ],
)
def test_an_attachment_with_data_says_what_it_is(value: Resource, fine: bool) -> None:
    found = broken("Media", R4, content=value)
    assert found == ([] if fine else [(Kind.ATT_1, "content")])


def test_the_words_of_a_rule_come_with_its_key() -> None:
    found = list(
        invariant_findings({"reference": "#a"}, "Patient", R4),
    )
    assert [each.diagnostics for each in found] == [
        "ref-1: a reference that begins with # names a contained resource."
    ]
    assert all(kind.value[3] == "-" for kind in RULES)


@pytest.mark.parametrize("garbage", [None, 1, "a", [], {}, [[]], [None], {"coding": 1}])
@pytest.mark.parametrize("resource_type", ["Observation", "Condition", "AllergyIntolerance"])
def test_nothing_here_expects_a_valid_resource(resource_type: str, garbage: Any) -> None:
    names = ["code", "component", "stage", "evidence", "category", "contained", "extension"]
    names += ["clinicalStatus", "verificationStatus", "valueString", "data", "reference"]
    broken(resource_type, R4, **dict.fromkeys(names, garbage))
