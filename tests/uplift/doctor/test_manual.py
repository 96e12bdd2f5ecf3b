"""What the doctor says of a server's own description."""

from typing import Any

import pytest

from tests.uplift.destinations.known import hapi
from uplift.destinations.destination import Mode
from uplift.doctor.findings import Finding, Verdict, worst
from uplift.doctor.manual import judge_manual
from uplift.fhir.types import HEALTHKIT_TYPES
from uplift.fhir.versions import FhirVersion

R4 = FhirVersion.R4
WHOLE = ("create", "read", "update", "delete", "search-type")


def statement(
    *interactions: str, types: frozenset[str] = HEALTHKIT_TYPES | {"Patient"}, **abilities: bool
) -> dict[str, Any]:
    codes = [{"code": code} for code in interactions]
    resources = [{"type": each, "interaction": codes, **abilities} for each in sorted(types)]
    return {"resourceType": "CapabilityStatement", "rest": [{"resource": resources}]}


def judged(
    said: dict[str, Any], mode: Mode = Mode.PUT, proven: tuple[str, ...] = ()
) -> list[Finding]:
    return judge_manual(hapi(mode=mode), R4, said, proven)


@pytest.mark.parametrize(
    ("mode", "abilities"),
    [
        (Mode.PUT, {"updateCreate": True}),
        (Mode.UPSERT, {"conditionalUpdate": True}),
        (Mode.ONEUP, {}),
    ],
)
def test_a_server_that_declares_what_the_mode_needs_is_well(
    mode: Mode, abilities: dict[str, bool]
) -> None:
    said = statement(*WHOLE)
    for each in said["rest"][0]["resource"]:
        each |= abilities
    (finding,) = judged(said, mode)
    assert finding.verdict is Verdict.OK
    assert f"what mode {mode} needs" in finding.what


def test_what_is_not_declared_may_be_there_and_a_test_patient_proves_it() -> None:
    (finding,) = judged(statement(*WHOLE, conditionalUpdate=True))
    assert finding.verdict is Verdict.WARN
    assert "updateCreate is not declared of any type" in finding.what
    assert "--write" in (finding.do or "")
    (proven,) = judged(statement(*WHOLE), proven=("updateCreate",))
    assert (proven.verdict, proven.do) == (Verdict.OK, None)
    assert "and is there" in proven.what


def test_what_a_server_says_that_it_has_not_is_a_failure() -> None:
    (finding,) = judged(statement(*WHOLE, updateCreate=False))
    assert finding.verdict is Verdict.FAIL
    assert "enable-update-create" in (finding.do or "")
    (proven,) = judged(statement(*WHOLE, updateCreate=False), proven=("updateCreate",))
    assert proven.verdict is Verdict.OK


def test_types_and_interactions_that_lack_are_named() -> None:
    few = frozenset({"Patient", "Observation"})
    said = judged(statement("read", "update", types=few, updateCreate=True))
    lines = [finding.what for finding in said]
    assert any("delete is not declared of any type" in line for line in lines)
    assert any("AllergyIntolerance, Condition" in line and "more" in line for line in lines)
    assert worst(said) is Verdict.WARN
    mixed = statement(*WHOLE, updateCreate=True)
    mixed["rest"][0]["resource"][0]["interaction"] = []
    assert any("update is not declared of AllergyIntolerance" in f.what for f in judged(mixed))


@pytest.mark.parametrize("rest", [None, "x", [], [{"mode": "client"}], [{"resource": "x"}], [1]])
def test_a_statement_without_types_is_told(rest: Any) -> None:
    (finding,) = judged({"rest": rest})
    assert (finding.verdict, "not declared are the types" in finding.what) == (Verdict.WARN, True)


def test_a_statement_is_of_the_types_of_its_version() -> None:
    (finding,) = judge_manual(hapi(), FhirVersion.DSTU2, {})
    assert "MedicationRequest" not in finding.what
