"""How the responses to a PUT are classified, and those to /metadata."""

from typing import Any

import httpx
import orjson
import pytest

from tests.uplift.destinations.known import hapi, oneup
from uplift.destinations.destination import Meaning
from uplift.destinations.receipts import Receipt
from uplift.destinations.requests import Create, Put, Upsert, Write
from uplift.destinations.responses import (
    Response,
    ResponseKind,
    classify_match,
    classify_metadata,
    classify_write,
)
from uplift.fhir.versions import FhirVersion

SENT = {"resourceType": "Observation", "id": "u1", "status": "final"}
FHIR = {"Content-Type": "application/fhir+json"}
BASE = "https://hapi.example/r4"
PUT = Put("u1")
WELL = {"resourceType": "OperationOutcome", "issue": [{"severity": "information", "code": "x"}]}
BAD = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "x"}]}


def put(
    status: int,
    body: Any = None,
    headers: dict[str, str] | None = None,
    *,
    write: Write = PUT,
    **destination: Any,
) -> Response:
    return classify_write(
        status,
        httpx.Headers(FHIR | (headers or {})),
        b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body),
        "Observation",
        destination=hapi(**destination),
        write=write,
        sent=orjson.dumps(SENT),
    )


LOCATION = {"Location": f"{BASE}/Observation/u1/_history/3"}
CONTENT_LOCATION = {"Content-Location": f"{BASE}/Observation/u1/_history/3"}


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (201, {**SENT, "meta": {"versionId": "3"}}, {}),
        (200, SENT, {"ETag": 'W/"3"'}),
        (201, None, LOCATION),
        (201, None, CONTENT_LOCATION),
        (200, None, {"ETag": 'W/"3"'}),
        (204, None, {"ETag": '"3"'}),
        (200, None, {"ETag": "3"}),
        (201, WELL, CONTENT_LOCATION),
    ],
)
def test_a_put_is_stored_where_the_resource_or_a_header_says_so(
    status: int, body: Any, headers: dict[str, str]
) -> None:
    response = put(status, body, headers)
    assert (response.kind, response.receipt) == (ResponseKind.STORED, Receipt("u1", "3"))
    assert not response.differs


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (None, {}),
        (b"<html>log in</html>", {"Content-Type": "text/html"} | LOCATION),
        ({"resourceType": "Patient", "id": "u1"}, {}),
        ({"error": "not now"}, LOCATION),
        (BAD, LOCATION),
        (None, {"Location": f"{BASE}/Patient/u1"}),
        (None, {"Location": f"{BASE}/Observation/another"}),
        ({**SENT, "id": "another"}, {}),
    ],
)
def test_another_success_leaves_it_unknown(body: Any, headers: dict[str, str]) -> None:
    assert put(201, body, headers).kind is ResponseKind.UNKNOWN


def test_an_upsert_is_known_by_the_id_that_the_server_chose() -> None:
    response = put(201, {**SENT, "id": "7"}, write=Upsert("u1"))
    assert (response.kind, response.receipt) == (ResponseKind.STORED, Receipt("7", None))
    assert put(201, None, {"ETag": 'W/"1"'}, write=Upsert("u1")).kind is ResponseKind.UNKNOWN


@pytest.mark.parametrize("status", [409, 412])
@pytest.mark.parametrize(
    ("meaning", "kind"),
    [
        (Meaning.LOOK, ResponseKind.CONFLICT),
        (Meaning.RETRY, ResponseKind.LOCKED),
        (Meaning.REFUSED, ResponseKind.REFUSED),
    ],
)
def test_a_conflict_means_what_the_destination_says(
    status: int, meaning: Meaning, kind: ResponseKind
) -> None:
    name = "on_conflict" if status == 409 else "on_precondition"
    chosen: dict[str, Any] = {name: meaning}
    assert put(status, BAD, **chosen).kind is kind
    # To a precondition both say no, and a read tells why.
    assert put(status, BAD, write=Put("u1", "1"), **chosen).kind is ResponseKind.CONFLICT


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ResponseKind.REFUSED),
        (401, ResponseKind.UNAUTHORIZED),
        (403, ResponseKind.HOLD),
        (404, ResponseKind.HOLD),
        (405, ResponseKind.HOLD),
        (422, ResponseKind.REFUSED),
        (429, ResponseKind.BUSY),
        (500, ResponseKind.UNKNOWN),
        (504, ResponseKind.UNKNOWN),
    ],
)
def test_each_other_status_means_what_it_does_for_a_create(status: int, kind: ResponseKind) -> None:
    assert put(status, BAD).kind is kind


@pytest.mark.parametrize("status", [404, 410])
def test_that_nothing_is_there_is_a_conflict_with_a_precondition(status: int) -> None:
    assert put(status, BAD, write=Put("u1", "1")).kind is ResponseKind.CONFLICT
    page = put(status, b"<html>", {"Content-Type": "text/html"}, write=Put("u1", "1"))
    assert page.kind is put(status).kind, "a gateway's page says nothing of the resource"


def test_a_create_without_a_body_is_stored_where_its_location_says() -> None:
    """Prefer: return=minimal. It was unknown once, and sent again: two copies."""
    response = classify_write(
        201,
        httpx.Headers(LOCATION),
        b"",
        "Observation",
        destination=oneup(),
        write=Create(),
        sent=orjson.dumps({**SENT, "id": "1"}),
    )
    assert (response.kind, response.receipt) == (ResponseKind.STORED, Receipt("u1", "3"))
    assert response.receipt is not None
    assert response.receipt.assigned


def page(*resources: dict[str, Any], **more: Any) -> bytes:
    entry = [{"resource": each} for each in resources]
    return orjson.dumps({"resourceType": "Bundle", "type": "searchset", "entry": entry, **more})


def match(*resources: dict[str, Any], status: int = 200, **more: Any) -> Response:
    return classify_match(status, httpx.Headers(FHIR), page(*resources, **more), "Observation")


def test_a_search_for_a_derived_id_finds_the_only_one() -> None:
    found = match({**SENT, "id": "7", "meta": {"versionId": "2"}}, WELL)
    assert (found.kind, found.receipt) == (ResponseKind.FOUND, Receipt("7", "2"))
    assert match().kind is ResponseKind.ABSENT
    assert match(SENT, SENT).code == "several_match"
    assert match(BAD).kind is ResponseKind.UNKNOWN
    assert match(status=500).kind is ResponseKind.UNKNOWN


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, {"fhirVersion": "4.0.1"}, ResponseKind.FOUND, "http_200"),
        (200, {"fhirVersion": "1.0.2"}, ResponseKind.HOLD, "wrong_fhir_version"),
        (200, {"fhirVersion": "4.3.0"}, ResponseKind.HOLD, "wrong_fhir_version"),
        (200, {"fhirVersion": 4}, ResponseKind.HOLD, "no_fhir_version"),
        (200, {}, ResponseKind.HOLD, "no_fhir_version"),
        (200, b"<html>", ResponseKind.HOLD, "no_fhir_version"),
        (404, {}, ResponseKind.HOLD, "no_fhir_version"),
        (301, {}, ResponseKind.HOLD, "no_fhir_version"),
        (401, {}, ResponseKind.UNAUTHORIZED, "http_401"),
        (429, {}, ResponseKind.BUSY, "http_429"),
        (503, {}, ResponseKind.UNKNOWN, "http_503"),
    ],
)
def test_a_server_is_of_the_version_that_its_metadata_names(
    status: int, body: Any, kind: ResponseKind, code: str
) -> None:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    response = classify_metadata(status, httpx.Headers(FHIR), content, FhirVersion.R4)
    assert (response.kind, response.code) == (kind, code)
