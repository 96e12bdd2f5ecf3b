import orjson

from uplift.fhir.second_opinion import is_chosen, objection
from uplift.fhir.validate import SECOND_OPINION_BYTES, validate
from uplift.fhir.versions import FhirVersion

# Legal: the required choice is present as an extension only.  fhir.resources refuses it.
IMMUNIZATION = {
    "resourceType": "Immunization",
    "status": "completed",
    "vaccineCode": {"text": "Influenza"},
    "patient": {"reference": "Patient/1"},
    "_occurrenceDateTime": {
        "extension": [
            {
                "url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
                "valueCode": "unknown",
            }
        ]
    },
}


def test_an_objection_of_the_library_is_a_warning_and_the_record_is_relayed() -> None:
    report = validate(orjson.dumps(IMMUNIZATION), "R4")
    assert report.valid
    assert report.library_disagreement
    assert [(issue.severity, issue.code) for issue in report.issues] == [
        ("warning", "library-disagreement")
    ]


def test_the_library_is_not_asked_about_what_the_schema_objects_to() -> None:
    report = validate(orjson.dumps({**IMMUNIZATION, "id": "a_1"}), "R4")
    assert report.valid
    assert not report.library_disagreement


def test_the_library_is_not_asked_about_very_long_records() -> None:
    text = "a" * SECOND_OPINION_BYTES
    long = {**IMMUNIZATION, "lotNumber": text}
    assert not validate(orjson.dumps(long), "R4").library_disagreement


def test_there_is_no_second_opinion_on_dstu2_and_on_types_that_r4b_dropped() -> None:
    assert objection(b"{}", FhirVersion.DSTU2, "Patient") is None
    assert objection(b"{}", FhirVersion.R4, "EffectEvidenceSynthesis") is None


def test_a_crash_of_the_library_is_an_objection_and_no_error() -> None:
    body = orjson.dumps({"resourceType": "Patient", "contained": [{"resourceType": "Nope"}]})
    crashed = objection(body, FhirVersion.R4, "Patient")
    assert crashed is not None


def test_an_objection_holds_no_value_of_the_record() -> None:
    body = orjson.dumps({"resourceType": "Patient", "birthDate": "secret", "gender": {"secret": 1}})
    assert "secret" not in repr(objection(body, FhirVersion.R4, "Patient"))


def test_a_share_of_the_bodies_is_chosen_always_the_same_ones() -> None:
    bodies = [orjson.dumps({"resourceType": "Patient", "id": str(n)}) for n in range(2000)]
    chosen = {share: {each for each in bodies if is_chosen(each, share)} for share in (0.05, 0.5)}
    assert 60 < len(chosen[0.05]) < 140
    assert 900 < len(chosen[0.5]) < 1100
    assert chosen[0.05] < chosen[0.5]
    assert all(is_chosen(each, 1.0) for each in bodies)
    assert not any(is_chosen(each, 0.0) for each in bodies)
