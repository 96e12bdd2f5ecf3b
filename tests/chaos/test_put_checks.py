"""Each check of a run against a server like HAPI fails on a system that breaks its promise."""

from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from chaos import checks, put_checks
from chaos.evidence import Attempt, Evidence, Request, Row, Stored
from chaos.options import Options
from chaos.put_evidence import held_by
from chaos.records import Version
from tests.chaos.test_checks import FIRST, NAMELESS, NOW, SECOND, good, row
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer

LIKE_HAPI, BEYOND = Options(like="hapi"), Options(like="hapi", beyond=True)


def put(version: Version, at: float, id_: str | None = None) -> Stored:
    return Stored("alice", id_ or f"u-{version.record}", version.sha256, at)


def request(version: Version, **fields: Any) -> Request:
    return Request(1, NOW + 1, "PUT", "/r4/Observation/u-r1", sha256=version.sha256, **fields)


def held(options: Options = LIKE_HAPI, **fields: Any) -> Evidence:
    values: dict[str, Any] = {
        "options": options,
        "attempts": [replace(each, outcome="stored") for each in good().attempts],
        "stored": [put(FIRST, NOW + 1), put(SECOND, NOW + 2), put(NAMELESS, NOW + 3)],
        "patients": [1],
    }
    return good(**values | fields)


STALE = [put(SECOND, NOW + 1), put(FIRST, NOW + 2), put(NAMELESS, NOW + 3)]
IN_DOUBT = [request(FIRST, answered=False)]


def saying(upload_id: str) -> list[Row]:
    return [replace(each, maybe_overwritten=each.id == upload_id) for each in good().rows]


BAD: dict[str, tuple[checks.Check, Evidence]] = {
    "a record has two ids": (
        put_checks.each_record_is_one_resource,
        held(stored=[*held().stored, put(SECOND, NOW + 3, "another")]),
    ),
    "a person has two Patients": (
        put_checks.each_person_is_one_patient,
        held(patients=[1, 1]),
    ),
    "a person has none": (put_checks.each_person_is_one_patient, held(patients=[])),
    "a Patient was changed": (put_checks.each_person_is_one_patient, held(patients=[2])),
    "a status warns of a copy": (
        put_checks.nothing_is_marked_as_a_copy,
        held(rows=[row("u1", marked=True), *good().rows[1:]]),
    ),
    "an older version is there": (
        put_checks.the_last_delivered_version_is_there,
        held(stored=STALE),
    ),
    "an older version is there beyond every clock, and nobody says so": (
        put_checks.the_last_delivered_version_is_there,
        held(BEYOND, stored=STALE),
    ),
    "within settle an older version is there, though its record says so": (
        put_checks.the_last_delivered_version_is_there,
        held(stored=STALE, rows=saying("u2")),
    ),
    "a Bundle refuses an upload for the third time": (
        put_checks.what_is_poisonous_ends_alone,
        held(attempts=[Attempt("u1", NOW + n, "bundle_http_400") for n in range(3)]),
    ),
    "a Bundle that was refused is a verdict": (
        put_checks.what_is_poisonous_ends_alone,
        held(
            rows=[
                replace(row("u1", state="refused"), reason="upstream_refused"),
                *good().rows[1:],
            ],
            attempts=[Attempt("u1", NOW, "bundle_http_400")],
        ),
    ),
    "a record says so without a reason": (
        put_checks.few_say_that_they_may_be_overwritten,
        held(BEYOND, rows=saying("u2")),
    ),
}


def test_a_system_that_keeps_its_promises_passes_every_check() -> None:
    assert not any(checks.run(held(), put_checks.CHECKS).values())


@pytest.mark.parametrize("case", BAD)
def test_a_check_finds(case: str) -> None:
    check, evidence = BAD[case]
    assert check(evidence)


def test_every_check_of_its_own_has_a_case_in_which_it_fails() -> None:
    assert {check for check, _ in BAD.values()} == set(put_checks.CHECKS) - set(checks.CHECKS)


def test_beyond_every_clock_a_record_may_be_overwritten_if_it_says_so_and_had_a_reason() -> None:
    evidence = held(BEYOND, stored=STALE, rows=saying("u2"), requests=IN_DOUBT)
    assert put_checks.stale_records(evidence) == {("alice", "r1")}
    assert not any(checks.run(evidence, put_checks.CHECKS).values())


@pytest.mark.parametrize(
    "requests",
    [
        [request(FIRST)],
        [request(FIRST, answered=False, if_match=True)],
        [request(SECOND, answered=False)],
    ],
    ids=["its answer came", "it had a precondition", "it is the newest version"],
)
def test_no_other_send_is_a_reason(requests: list[Request]) -> None:
    evidence = held(BEYOND, stored=STALE, rows=saying("u2"), requests=requests)
    assert put_checks.few_say_that_they_may_be_overwritten(evidence)


def test_a_rewritten_record_is_known_as_the_version_that_a_device_sent() -> None:
    rewritten = {
        **orjson.loads(FIRST.body),
        "id": "u-r1",
        "subject": {"reference": "Patient/u-alice"},
        "identifier": [{"system": "urn:uplift:source:1", "value": "Observation/r1"}],
    }
    with SandboxServer(SandboxConfig(like="hapi")) as sandbox:
        with httpx.Client(base_url=f"{sandbox.url}/r4", trust_env=False) as client:
            client.put("Patient/u-alice", json={"resourceType": "Patient", "id": "u-alice"})
            sent = client.put("Observation/u-r1", json=rewritten)
            client.put("Observation/x", json={**rewritten, "id": "x", "note": [{"text": "?"}]})
        found = held_by(sandbox.resources(bytes="1"), [FIRST, SECOND])
    assert sent.status_code == 201
    assert found.patients == [1]
    assert [(each.user, each.resource_id) for each in found.stored] == [
        ("alice", "u-r1"),
        ("", "x"),
    ]
    assert set(found.sent.values()) == {FIRST.sha256}
