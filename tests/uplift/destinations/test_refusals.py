"""What is kept of a destination's refusal."""

from typing import Any

import httpx
import orjson
import pytest

from uplift.destinations.refusals import refusal_issues
from uplift.fhir.versions import FhirVersion

_JSON = httpx.Headers({"content-type": "application/fhir+json"})


def _kept(*issues: Any, **others: Any) -> list[tuple[str, str, list[str]]]:
    body = {"resourceType": "OperationOutcome", "issue": list(issues), **others}
    found = refusal_issues(_JSON, orjson.dumps(body), FhirVersion.R4, "Patient")
    assert "Canary" not in str(found)
    return [(each["severity"], each["code"], each["expression"]) for each in found]


def test_types_and_elements_are_kept_and_no_text() -> None:
    assert _kept(
        {
            "severity": "error",
            "code": "invariant",
            "details": {"text": "Canary"},
            "diagnostics": "Canary Jones has no birth date",
            "expression": ["Patient.birthDate", "Patient.Canary"],
            "location": ["/f:Patient/f:birthDate"],
        },
        {"severity": "Canary", "code": "required", "location": ["Line 1"]},
        text={"div": "Canary"},
    ) == [("error", "invariant", ["Patient.birthDate"]), ("error", "required", [])]


@pytest.mark.parametrize(
    ("diagnostics", "kept"),
    [
        ("HAPI-0960: Canary", "HAPI-0960. "),
        ("HAPI-0960: HAPI-1094: Canary", "HAPI-0960. "),
        ("Canary HAPI-0960: Canary", ""),
        ("HAPI-096: Canary", ""),
        ("HAPI-09601: Canary", ""),
        ("HAPI-0960 Canary", ""),
        ("hapi-0960: Canary", ""),
        (["HAPI-0960: Canary"], ""),
        (None, ""),
    ],
)
def test_a_leading_code_of_the_server_is_kept_and_nothing_behind_it(
    diagnostics: Any, kept: str
) -> None:
    issue = {"severity": "error", "code": "processing", "diagnostics": diagnostics}
    body = orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
    (found,) = refusal_issues(_JSON, body, FhirVersion.R4, "Patient")
    assert found["diagnostics"] == (
        f"{kept}The destination says so. Its words are not kept, since they may quote the record."
    )


def test_an_issue_without_a_type_of_fhir_is_left_out() -> None:
    assert _kept({"code": "Canary"}, {"code": ["value"]}, "Canary", None, {"code": "value"}) == [
        ("error", "value", [])
    ]


def test_many_issues_are_cut_and_equal_ones_are_one() -> None:
    issues = [{"code": "value", "expression": [f"Patient.name[{n}]"]} for n in range(100)]
    assert len(_kept(*issues, *issues)) == 20
    assert len(_kept(*[{"code": "value"}] * 9)) == 1
    (many,) = _kept({"code": "value", "expression": [f"Patient.name[{n}]" for n in range(9)]})
    assert len(many[2]) == 5


def test_what_is_no_operation_outcome_has_no_issues() -> None:
    for headers, body in (
        (httpx.Headers({"content-type": "text/html"}), b"<html>"),
        (_JSON, b"{"),
        (_JSON, b"[]"),
        (_JSON, b'{"issue": [{"code": "value"}]}'),
        (_JSON, b'{"resourceType": "OperationOutcome", "issue": {"code": "value"}}'),
    ):
        assert refusal_issues(headers, body, FhirVersion.R4, "Patient") == ()
