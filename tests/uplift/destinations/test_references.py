"""How a record is rewritten for a destination that knows it by a derived id: the listed rules."""

import json
from typing import Any

import pytest

from tests.uplift.fhir.published import examples, needs_examples
from uplift.destinations.references import (
    Rewriting,
    found_by,
    literal_targets,
    parse,
    parse_with_references,
    rewritten,
    subject_element,
    write,
)
from uplift.fhir.empties import has_content
from uplift.fhir.types import HEALTHKIT_TYPES
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion

R4, STU3, DSTU2 = FhirVersion.R4, FhirVersion.STU3, FhirVersion.DSTU2
SYSTEM = "urn:uplift:source:s"
PERSON = "Patient/uPERSON"


def rules(version: FhirVersion = R4, **changed: Any) -> Rewriting:
    given: dict[str, Any] = {"own_id": "uOWN", "patient": PERSON, **changed}
    return Rewriting(version=version, source_system=SYSTEM, **given)


def observation(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": "1", "subject": {"reference": "Patient/p"}} | (
        elements
    )


def rewritten_reference(
    reference: dict[str, Any], version: FhirVersion = R4, **changed: Any
) -> dict[str, Any]:
    """What becomes of a reference in an Observation."""
    resource = observation(specimen=dict(reference))
    return dict(rewritten(resource, rules(version, **changed))["specimen"])


@pytest.mark.parametrize(
    "reference",
    [
        "Patient/p",
        "Patient/p/_history/3",
        "https://hospital.example/fhir/Patient/p",
        "https://hospital.example/fhir/Patient/p/",
        "Patient?identifier=a|b",
        "https://hospital.example/fhir/Patient?_id=p",
    ],
)
@pytest.mark.parametrize("version", [R4, STU3, DSTU2])
def test_a_reference_to_a_patient_is_one_to_the_person_whatever_names_it(
    reference: str, version: FhirVersion
) -> None:
    resource = observation(
        performer=[{"reference": reference, "display": "Alice"}],
        contained=[{"resourceType": "Condition", "asserter": {"reference": reference}}],
    )
    done = rewritten(resource, rules(version))
    assert done["performer"] == [{"reference": PERSON, "display": "Alice"}]
    assert done["contained"][0]["asserter"] == {"reference": PERSON}
    assert done["subject"] == {"reference": PERSON}


def test_where_the_subject_stays_references_to_patients_do() -> None:
    done = rewritten(observation(focus=[{"reference": "Patient/q"}]), rules(patient=None))
    assert done["subject"] == {"reference": "Patient/p"}
    assert done["focus"] == [{"reference": "Patient/q"}]


@pytest.mark.parametrize(
    "reference", ["Specimen/7", "https://h.example/r4/Specimen/7", "Specimen/7/_history/2"]
)
def test_a_reference_to_a_record_that_is_there_leads_to_it(reference: str) -> None:
    given = {"reference": reference, "display": "Blood", "type": "Specimen"}
    assert rewritten_reference(given, targets={"Specimen/7": "Specimen/u7"}) == {
        "reference": "Specimen/u7",
        "display": "Blood",
        "type": "Specimen",
    }


@pytest.mark.parametrize(
    ("version", "reference", "expected"),
    [
        (
            R4,
            {"reference": "Specimen/7", "display": "Blood"},
            {
                "display": "Blood",
                "identifier": {"system": SYSTEM, "value": "Specimen/7"},
                "type": "Specimen",
            },
        ),
        (
            STU3,
            {"reference": "https://h.example/Specimen/7"},
            {"identifier": {"system": SYSTEM, "value": "Specimen/7"}},
        ),
        (DSTU2, {"reference": "Specimen/7", "display": "Blood"}, {"display": "Blood"}),
        (DSTU2, {"reference": "Specimen/7"}, {"display": "Specimen/7"}),
        (
            R4,
            {"reference": "Specimen/7", "identifier": {"value": "own"}},
            {"identifier": {"value": "own"}, "type": "Specimen"},
        ),
        (
            R4,
            {"reference": "urn:uuid:0", "_reference": {"id": "x"}},
            {"identifier": {"system": "urn:ietf:rfc:3986", "value": "urn:uuid:0"}},
        ),
    ],
)
def test_a_reference_to_what_is_not_there_is_logical(
    version: FhirVersion, reference: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert rewritten_reference(reference, version) == expected


@pytest.mark.parametrize(
    "untouched",
    [
        {"specimen": {"reference": "#inside"}},
        {"specimen": {"identifier": {"value": "7"}}},
        {"specimen": {"display": "Blood"}},
        {"specimen": {"reference": ""}},
        {"specimen": {"reference": " ", "display": "Blood"}},
        {"specimen": {"reference": []}},
        {"instantiatesCanonical": "http://example.org/PlanDefinition/1"},
        {"attachment": {"url": "Binary/1"}},
        {"expression": {"language": "text/cql", "reference": "Library/1"}},
        {"education": [{"reference": "http://example.org/Leaflet/1"}]},
        {"entity": [{"role": "source", "reference": "Observation/2"}]},
        {"reference": "http://example.org/Leaflet/1"},
    ],
)
def test_what_is_no_literal_reference_stays(untouched: dict[str, Any]) -> None:
    done = rewritten(observation(**json.loads(json.dumps(untouched))), rules())
    assert {name: done[name] for name in untouched} == untouched
    assert not literal_targets(observation(**untouched), but_patient=True)


def test_a_reference_to_itself_is_logical() -> None:
    done = rewritten(observation(hasMember=[{"reference": "Observation/1"}]), rules())
    (reference,) = done["hasMember"]
    # HAPI refuses a new resource that refers to itself.
    assert "reference" not in reference
    assert reference["identifier"]["value"] == "Observation/1"


def test_the_targets_are_what_it_refers_to_but_itself_and_the_person() -> None:
    resource = observation(
        hasMember=[{"reference": "Observation/1"}, {"reference": "Observation/2"}],
        contained=[{"resourceType": "Specimen", "parent": [{"reference": "https://h/Specimen/3"}]}],
        extension=[{"url": "x", "valueReference": {"reference": "Device/4"}}],
        note={"reference": "urn:uuid:5"},
    )
    found = {"Observation/2", "Specimen/3", "Device/4"}
    assert literal_targets(resource, but_patient=True) == found
    assert literal_targets(resource, but_patient=False) == found | {"Patient/p"}


def test_its_id_is_the_derived_one_and_the_original_an_identifier() -> None:
    done = rewritten(observation(identifier=[{"value": "a"}]), rules())
    assert done["id"] == "uOWN"
    assert done["identifier"] == [{"value": "a"}, {"system": SYSTEM, "value": "Observation/1"}]


def test_a_record_without_an_id_gets_no_identifier() -> None:
    resource = observation()
    del resource["id"]
    assert "identifier" not in rewritten(resource, rules())


def test_where_the_server_chooses_ids_the_derived_one_is_an_identifier() -> None:
    done = rewritten(observation(), rules(own_id=None, record_identifier="uOWN"))
    assert "id" not in done
    assert done["identifier"] == [
        {"system": SYSTEM, "value": "Observation/1"},
        {"system": "urn:uplift:record", "value": "uOWN"},
    ]
    assert found_by(done, "uOWN") == "identifier"


@pytest.mark.parametrize("has_one", [True, False])
def test_a_type_with_room_for_one_identifier_takes_a_tag_if_the_hospital_has_set_it(
    has_one: bool,
) -> None:
    dispense: dict[str, Any] = {"resourceType": "MedicationDispense", "id": "1"}
    if has_one:
        dispense["identifier"] = {"value": "hospital's"}
    done = rewritten(dispense, rules(DSTU2))
    named = {"system": SYSTEM, "value": "MedicationDispense/1"}
    if has_one:
        assert done["identifier"] == {"value": "hospital's"}
        assert done["meta"]["tag"] == [{"system": SYSTEM, "code": "MedicationDispense/1"}]
    else:
        assert done["identifier"] == named
        assert "meta" not in done


def test_what_has_no_room_for_a_record_identifier_is_found_by_its_tag() -> None:
    dispense = {"resourceType": "MedicationDispense", "identifier": {"value": "hospital's"}}
    done = rewritten(dispense, rules(DSTU2, own_id=None, record_identifier="uOWN"))
    assert done["meta"]["tag"] == [{"system": "urn:uplift:record", "code": "uOWN"}]
    assert found_by(done, "uOWN") == "_tag"


# As HL7's definitions have them.
SUBJECTS = {
    DSTU2: {
        "AllergyIntolerance": "patient",
        "Condition": "patient",
        "Coverage": "subscriber",
        "DiagnosticReport": "subject",
        "DocumentReference": "subject",
        "Immunization": "patient",
        "MedicationDispense": "patient",
        "MedicationOrder": "patient",
        "MedicationStatement": "patient",
        "Observation": "subject",
        "Procedure": "subject",
    },
    STU3: {
        "AllergyIntolerance": "patient",
        "Condition": "subject",
        "Coverage": "beneficiary",
        "DiagnosticReport": "subject",
        "DocumentReference": "subject",
        "Immunization": "patient",
        "MedicationDispense": "subject",
        "MedicationRequest": "subject",
        "MedicationStatement": "subject",
        "Observation": "subject",
        "Procedure": "subject",
    },
}
SUBJECTS[R4] = SUBJECTS[STU3]


@pytest.mark.parametrize("version", FhirVersion)
def test_each_clinical_type_of_healthkit_says_whose_it_is(version: FhirVersion) -> None:
    found = {each: subject_element(version, each) for each in HEALTHKIT_TYPES}
    assert {each: name for each, name in found.items() if name} == SUBJECTS[version]


@pytest.mark.parametrize("resource_type", ["Organization", "Practitioner", "Device", "Patient"])
def test_what_is_nobodys_gets_no_subject(resource_type: str) -> None:
    done = rewritten({"resourceType": resource_type, "id": "1"}, rules())
    assert PERSON not in str(done)


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (None, {"reference": PERSON}),
        ({"display": "Alice"}, {"display": "Alice", "reference": PERSON}),
        ({"reference": "Group/1"}, {"identifier": {"system": SYSTEM, "value": "Group/1"}}),
        # What holds nothing counts as absent.
        ({"reference": ""}, {"reference": PERSON}),
        ({"reference": "\t"}, {"reference": PERSON}),
        ({"reference": {}, "display": "Alice"}, {"display": "Alice", "reference": PERSON}),
        ({}, {"reference": PERSON}),
        ("", {"reference": PERSON}),
        ([], {"reference": PERSON}),
        ([{}], {"reference": PERSON}),
    ],
)
def test_a_clinical_record_without_a_subject_is_the_persons(
    subject: Any, expected: dict[str, Any]
) -> None:
    resource: dict[str, Any] = {"resourceType": "Condition", "id": "1"}
    if subject is not None:
        resource["subject"] = subject
    done = rewritten(resource, rules())["subject"]
    assert done.items() >= expected.items()


@pytest.mark.parametrize("empty", ["", " ", [], {}, [""], [{}], {"tag": ""}, {"tag": [{}]}])
@pytest.mark.parametrize("name", ["id", "identifier", "meta", "subject"])
@pytest.mark.parametrize("derived", [{"own_id": "uOWN"}, {"own_id": None}])
def test_what_holds_nothing_counts_as_absent_wherever_something_is_added(
    name: str, empty: Any, derived: dict[str, Any]
) -> None:
    """Validation tolerates it. An attempt that fails for it would be repeated for days."""
    changed = {**derived, "record_identifier": "uRECORD"}
    for resource in (
        observation(status="final", code={"text": "Pulse"}),
        {"resourceType": "Composition", "id": "1"},  # has room for one identifier
        {"resourceType": "Binary", "id": "1"},  # has room for none
    ):
        whole = {**resource, name: json.loads(json.dumps(empty))}
        without = {key: value for key, value in resource.items() if key != name}
        done = rewritten(whole, rules(**changed))
        held = {key: value for key, value in done.items() if has_content(value)}
        assert held == rewritten(without, rules(**changed))


def test_numbers_keep_their_digits_and_the_rest_its_content() -> None:
    body = b'{"resourceType":"Basic","a":72.50,"b":1.10e3,"c":[0.0,-1,null,true],"d":"\\u00fc"}'
    assert write(parse(body)) == (
        '{"resourceType":"Basic","a":72.50,"b":1.10e3,"c":[0.0,-1,null,true],"d":"ü"}'.encode()
    )


@pytest.mark.parametrize(
    "number", ["0E-9999999999999999999", "1e-9999999999999999999", "0e9999999999999999999"]
)
def test_a_number_whose_exponent_no_decimal_can_hold_is_sent_as_it_came(number: str) -> None:
    body = b'{"resourceType":"Basic","a":%s}' % number.encode()
    assert write(parse(body)) == body


@pytest.mark.parametrize(
    ("number", "written"),
    [("-0", "0"), ("-0.0", "-0.0"), ("-0e0", "-0e0"), ("-1", "-1"), ("9" * 30, "9" * 30)],
)
def test_a_whole_zero_has_no_sign_and_every_other_number_is_sent_as_it_came(
    number: str, written: str
) -> None:
    assert write(parse(b'{"a":%s}' % number.encode())) == b'{"a":%s}' % written.encode()


@needs_examples
@pytest.mark.parametrize("version", FhirVersion)
def test_no_example_of_hl7_is_left_with_a_reference_to_what_is_not_there(
    version: FhirVersion,
) -> None:
    for name, body in examples(version).items():
        done = rewritten(parse(body), rules(version))
        # One to itself leads to itself.
        assert not literal_targets(done, but_patient=True), name
        assert write(done)


@needs_examples
@pytest.mark.parametrize("version", FhirVersion)
def test_what_was_valid_is_valid_when_it_is_rewritten(version: FhirVersion) -> None:
    checked = 0
    for name, body in examples(version).items():
        resource = parse(body)
        if resource["resourceType"] not in HEALTHKIT_TYPES or not validate(body, version).valid:
            continue
        done = validate(write(rewritten(resource, rules(version))), version)
        assert done.valid, (name, done.to_json())
        checked += 1
    assert checked > 20


@needs_examples
@pytest.mark.parametrize("version", [R4, STU3, DSTU2])
def test_the_references_that_come_with_a_resource_are_all_that_it_has(version: FhirVersion) -> None:
    for body in examples(version).values():
        resource, references = parse_with_references(body)
        expected = literal_targets(parse(body), but_patient=False)
        assert literal_targets(resource, references, but_patient=False) == expected


def test_a_subject_that_is_added_is_among_the_references() -> None:
    resource, references = parse_with_references(b'{"resourceType":"Observation","id":"1"}')
    rewritten(resource, rules(), references)
    assert literal_targets(resource, references, but_patient=False) == {PERSON}


def test_a_name_that_is_written_with_escapes_is_found() -> None:
    body = (
        b'{"resourceType":"Observation","focus":[{"\\u0072eference":"Encounter/1"}],'
        b'"hasMember":[{"reference":"Observation/2"}]}'
    )
    resource, references = parse_with_references(body)
    found = literal_targets(resource, references, but_patient=False)
    assert found == {"Encounter/1", "Observation/2"}
