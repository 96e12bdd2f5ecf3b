from dataclasses import fields
from typing import Any

import orjson
import pytest

from uplift.fhir.findings import Kind
from uplift.fhir.tolerances import DEFAULT_TOLERANCES, Tolerances
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion

OBSERVATION = {"resourceType": "Observation", "status": "final", "code": {"text": "Weight"}}
CONDITION = {
    "resourceType": "Condition",
    "patient": {"reference": "Patient/1"},
    "code": {"text": "Asthma"},
    "verificationStatus": "confirmed",
}
XHTML = '<div xmlns="http://www.w3.org/1999/xhtml">text</div>'

SWITCHES: list[tuple[str, str, dict[str, Any]]] = [
    ("id_too_long", "R4", {**OBSERVATION, "id": "a" * 65}),
    ("id_with_underscore", "R4", {**OBSERVATION, "id": "a_1"}),
    ("dstu2_instant_without_zone", "DSTU2", {**OBSERVATION, "issued": "2019-03-01T10:00:00"}),
    (
        "dstu2_missing_required",
        "DSTU2",
        {name: value for name, value in CONDITION.items() if name != "patient"},
    ),
    ("missing_required", "R4", {"resourceType": "Observation", "status": "final"}),
    ("missing_required", "STU3", {"resourceType": "Observation", "status": "final"}),
    ("unknown_element", "R4", {**OBSERVATION, "colour": "blue"}),
    ("code_outside_binding", "R4", {**OBSERVATION, "status": "finished"}),
    ("reference_target", "R4", {**OBSERVATION, "subject": {"reference": "Slot/1"}}),
    (
        "period_reversed",
        "R4",
        {**OBSERVATION, "effectivePeriod": {"start": "2020-02-02", "end": "2020-01-01"}},
    ),
    ("narrative_not_xhtml", "R4", {**OBSERVATION, "text": {"status": "generated", "div": "text"}}),
]


@pytest.mark.parametrize(("switch", "version", "resource"), SWITCHES)
def test_a_switch_turns_its_error_into_a_warning(
    switch: str, version: str, resource: dict[str, Any]
) -> None:
    body = orjson.dumps(resource)
    strict = {each.name: False for each in fields(Tolerances)}
    refused = validate(body, version, tolerances=Tolerances.strict())
    tolerated = validate(body, version, tolerances=Tolerances(**{**strict, switch: True}))
    assert [issue.severity for issue in refused.issues] == ["error"]
    assert [issue.severity for issue in tolerated.issues] == ["warning"]
    assert not refused.valid
    assert tolerated.valid


def test_every_switch_is_tested() -> None:
    assert {switch for switch, _, _ in SWITCHES} == {each.name for each in fields(Tolerances)}


def test_the_defaults_are_the_documented_ones() -> None:
    tolerant = {each.name for each in fields(Tolerances) if getattr(DEFAULT_TOLERANCES, each.name)}
    assert tolerant == {
        "id_too_long",
        "id_with_underscore",
        "dstu2_instant_without_zone",
        "dstu2_missing_required",
        "reference_target",
        "period_reversed",
        "narrative_not_xhtml",
    }


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("version", FhirVersion)
def test_strict_tolerates_nothing(kind: Kind, version: FhirVersion) -> None:
    assert not Tolerances.strict().tolerates(kind, version)


def test_only_dstu2_may_leave_the_zone_of_an_instant_out() -> None:
    body = orjson.dumps({**OBSERVATION, "issued": "2019-03-01T10:00:00"})
    assert validate(body, "DSTU2").valid
    assert not validate(body, "R4").valid


def test_an_id_may_be_too_long_and_have_an_underscore_at_once() -> None:
    report = validate(orjson.dumps({**OBSERVATION, "id": "a_" * 40}), "R4")
    assert report.valid
    assert report.total == 2


def test_the_type_of_a_contained_resource_is_required_even_where_elements_are_not() -> None:
    body = orjson.dumps({**CONDITION, "contained": [{"id": "a"}]})
    report = validate(body, "DSTU2")
    assert not report.valid
    assert report.issues[0].expression == "Condition.contained[0].resourceType"
