"""What the response to a Bundle says of each of its entries: the whole table."""

from typing import Any

import httpx
import orjson
import pytest

from tests.uplift.destinations.known import hapi
from uplift.destinations.bundle_responses import BundleResponse, classify_bundle
from uplift.destinations.destination import BundleType
from uplift.destinations.receipts import Receipt
from uplift.destinations.requests import Entry, Put, Upsert, bundle_body
from uplift.destinations.responses import ResponseKind
from uplift.fhir.versions import FhirVersion

OUTCOME = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "information", "code": "informational", "diagnostics": "all is well"}],
}
JSON = {"content-type": "application/fhir+json;charset=utf-8"}


def resource(id_: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id_, "status": "final", **more}


def put(id_: str, if_match: str | None = None) -> Entry:
    return Entry("Observation", Put(id_, if_match), orjson.dumps(resource(id_)))


def stored(id_: str, version: str = "1", **more: Any) -> dict[str, Any]:
    """An entry of a success as HAPI answers it."""
    return {
        "resource": resource(id_, meta={"versionId": version}),
        "response": {
            "status": "201 Created",
            "location": f"Observation/{id_}/_history/{version}",
            "etag": version,
            "outcome": OUTCOME,
        },
        **more,
    }


def failed(status: str, issue: dict[str, Any] | None = None) -> dict[str, Any]:
    outcome = {"resourceType": "OperationOutcome", "issue": [issue] if issue else []}
    return {"response": {"status": status, "outcome": outcome}}


def classify(
    *answers: Any, entries: tuple[Entry, ...] = (put("u1"), put("u2")), status: int = 200
) -> BundleResponse:
    body = {"resourceType": "Bundle", "type": "transaction-response", "entry": list(answers)}
    return classified(status, orjson.dumps(body), entries)


def classified(
    status: int, body: bytes, entries: tuple[Entry, ...] = (put("u1"), put("u2"))
) -> BundleResponse:
    return classify_bundle(
        status,
        httpx.Headers({**JSON, "retry-after": "7"}),
        body,
        entries,
        destination=hapi(bundle=BundleType.TRANSACTION),
        version=FhirVersion.R4,
    )


def kinds(answer: BundleResponse) -> list[ResponseKind]:
    return [each.kind for each in answer.each]


def test_each_entry_has_its_own_receipt_by_a_bare_etag() -> None:
    bare = {"response": stored("u2", "4")["response"]}
    answer = classify(stored("u1"), bare)
    assert kinds(answer) == [ResponseKind.STORED] * 2
    assert [each.receipt for each in answer.each] == [Receipt("u1", "1"), Receipt("u2", "4")]
    assert not answer.is_of_all


def test_other_content_than_was_sent_is_told_of_its_entry_alone() -> None:
    other = stored("u2")
    other["resource"]["status"] = "amended"
    assert [each.differs for each in classify(stored("u1"), other).each] == [False, True]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (failed("400 Bad Request"), ResponseKind.REFUSED),
        (failed("422 Unprocessable Entity"), ResponseKind.REFUSED),
        (failed("409 Conflict"), ResponseKind.CONFLICT),
        (failed("429 Too Many Requests"), ResponseKind.BUSY),
        (failed("503 Service Unavailable"), ResponseKind.UNKNOWN),
        (failed("500"), ResponseKind.UNKNOWN),
        (failed("403 Forbidden"), ResponseKind.HOLD),
        (failed("Created"), ResponseKind.UNKNOWN),
        (failed("2011"), ResponseKind.UNKNOWN),
        ({"response": {}}, ResponseKind.UNKNOWN),
        ({"resource": resource("u2")}, ResponseKind.UNKNOWN),
        (None, ResponseKind.UNKNOWN),
        ("201 Created", ResponseKind.UNKNOWN),
        ({"response": {"status": "201 Created"}, "resource": 5}, ResponseKind.UNKNOWN),
    ],
)
def test_an_entrys_own_response_decides_its_own_outcome(
    answer: Any, expected: ResponseKind
) -> None:
    found = classify(stored("u1"), answer)
    assert kinds(found) == [ResponseKind.STORED, expected]
    assert not found.is_of_all


def test_why_an_entry_was_refused_is_kept_without_its_texts() -> None:
    issue = {"severity": "error", "code": "processing", "diagnostics": "HAPI-1094: of Jane Doe"}
    refusal = classify(stored("u1"), failed("400 Bad Request", issue)).each[1].refusal
    assert [each["code"] for each in refusal] == ["processing"]
    assert "Jane" not in str(refusal)
    assert "HAPI-1094" in str(refusal)


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [stored("u1")],
        [stored("u1"), stored("u2"), stored("u3")],
        [stored("u2"), stored("u1")],
        [stored("u1"), stored("u1")],
        [stored("u1"), {**stored("u2"), "resource": {"resourceType": "Patient", "id": "u2"}}],
        [stored("u1"), {**stored("u2"), "resource": {**resource("u2"), "id": ["u2"]}}],
        [stored("u1"), {"response": {"status": "200", "location": "Patient/u2/_history/1"}}],
        [{"response": stored("u2")["response"]}, {"response": stored("u1")["response"]}],
    ],
)
def test_where_count_or_order_do_not_fit_all_are_unknown(answers: list[Any]) -> None:
    found = classify(*answers)
    assert found.is_of_all
    assert {(each.kind, each.code) for each in found.each} == {
        (ResponseKind.UNKNOWN, "bundle_does_not_fit")
    }
    assert len(found.each) == 2


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"resourceType":"Patient"}', b'{"resourceType":"Bundle","entry":3}'],
)
def test_a_success_that_is_no_bundle_leaves_all_unknown(body: bytes) -> None:
    found = classified(200, body)
    assert found.is_of_all
    assert kinds(found) == [ResponseKind.UNKNOWN] * 2


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, ResponseKind.HOLD),
        *((each, ResponseKind.BUNDLE_REFUSED) for each in (400, 404, 405, 409, 410, 412)),
        *((each, ResponseKind.BUNDLE_REFUSED) for each in (413, 415, 418, 422)),
        (401, ResponseKind.UNAUTHORIZED),
        (403, ResponseKind.HOLD),
        (408, ResponseKind.UNKNOWN),
        (425, ResponseKind.BUSY),
        (429, ResponseKind.BUSY),
        *((each, ResponseKind.UNKNOWN) for each in (500, 501, 502, 503, 504, 599)),
    ],
)
def test_what_is_said_of_the_whole_is_no_verdict_on_a_record(
    status: int, expected: ResponseKind
) -> None:
    found = classified(status, orjson.dumps(OUTCOME))
    assert found.is_of_all
    assert kinds(found) == [expected] * 2
    assert found.each[0].code == f"bundle_http_{status}"


def test_an_upsert_is_told_apart_by_its_identifier() -> None:
    entries = tuple(Entry("Observation", Upsert(each), b"{}") for each in ("k1", "k2"))

    def named(key: str, id_: str) -> dict[str, Any]:
        identifier = [{"use": "usual", "system": "urn:uplift:record", "value": key}]
        return {**stored(id_), "resource": resource(id_, identifier=identifier)}

    in_order = classify(named("k1", "1001"), named("k2", "1002"), entries=entries)
    assert [each.receipt.id for each in in_order.each if each.receipt] == ["1001", "1002"]
    assert classify(named("k2", "1002"), named("k1", "1001"), entries=entries).is_of_all


def test_a_bundle_has_the_records_bytes_and_the_precondition_of_each() -> None:
    body = b'{"resourceType":"Observation","id":"u1","valueQuantity":{"value":0.40}}'
    made = bundle_body(
        BundleType.BATCH,
        [
            Entry("Observation", Put("u1", "3"), body),
            Entry("Observation", Upsert("k 1"), b"{}"),
        ],
    )
    assert body in made
    parsed = orjson.loads(made)
    assert (parsed["resourceType"], parsed["type"]) == ("Bundle", "batch")
    assert [each["request"] for each in parsed["entry"]] == [
        {"method": "PUT", "url": "Observation/u1", "ifMatch": 'W/"3"'},
        {"method": "PUT", "url": "Observation?identifier=urn%3Auplift%3Arecord%7Ck%201"},
    ]
