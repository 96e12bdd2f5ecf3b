"""Every status and body that 1upHealth is known, or may be expected, to respond with."""

from datetime import UTC, datetime
from typing import Any

import aiohttp
import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.uplift.destinations.known import oneup
from uplift.destinations.receipts import Receipt
from uplift.destinations.requests import Create, Update
from uplift.destinations.responses import (
    Response,
    ResponseKind,
    classify_error,
    classify_look_up,
    classify_write,
    of_another_record,
    of_assigned_id,
    retry_after,
)

JSON = httpx.Headers({"Content-Type": "application/json"})
FHIR_JSON = httpx.Headers({"Content-Type": "application/fhir+json; charset=utf-8"})
HTML = httpx.Headers({"Content-Type": "text/html"})
STORED = {"resourceType": "Observation", "id": "1"}
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def write(
    status: int, body: Any = None, headers: httpx.Headers = JSON, *, update: bool = False
) -> Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return classify_write(
        status,
        headers,
        content,
        "Observation",
        destination=oneup(),
        write=Update("1") if update else Create(),
        sent=orjson.dumps(STORED),
    )


def look_up(status: int, body: Any = None, headers: httpx.Headers = JSON) -> Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return classify_look_up(status, headers, content, "Observation")


# The answer table of the design, and for each status a shape of body that the contract knows.
WRITES = [
    (400, ResponseKind.REFUSED, {"resourceType": "OperationOutcome", "issue": []}),
    (401, ResponseKind.UNAUTHORIZED, {"message": "Unauthorized"}),
    (402, ResponseKind.HOLD, {}),
    (403, ResponseKind.HOLD, {"message": "Forbidden"}),
    (404, ResponseKind.HOLD, {"message": "Not Found"}),
    (405, ResponseKind.HOLD, None),
    (406, ResponseKind.HOLD, None),
    (408, ResponseKind.UNKNOWN, None),
    (409, ResponseKind.REFUSED, None),
    (410, ResponseKind.REFUSED, None),
    (411, ResponseKind.HOLD, None),
    (412, ResponseKind.REFUSED, None),
    (413, ResponseKind.REFUSED, None),
    (414, ResponseKind.HOLD, None),
    (415, ResponseKind.REFUSED, None),
    (418, ResponseKind.HOLD, None),
    (422, ResponseKind.REFUSED, {"resourceType": "OperationOutcome", "issue": []}),
    (423, ResponseKind.HOLD, None),
    (425, ResponseKind.BUSY, None),
    (429, ResponseKind.BUSY, {"message": "Too Many Requests"}),
    (451, ResponseKind.HOLD, None),
    (500, ResponseKind.UNKNOWN, {"error": "server_error", "error_description": "…"}),
    (501, ResponseKind.UNKNOWN, None),
    (502, ResponseKind.UNKNOWN, None),
    (503, ResponseKind.UNKNOWN, {"message": "Service Unavailable"}),
    (504, ResponseKind.UNKNOWN, None),
    (599, ResponseKind.UNKNOWN, None),
    (301, ResponseKind.HOLD, None),
    (302, ResponseKind.HOLD, None),
    (303, ResponseKind.HOLD, None),
    (304, ResponseKind.HOLD, None),
    (307, ResponseKind.HOLD, None),
    (308, ResponseKind.HOLD, None),
]


@pytest.mark.parametrize("update", [False, True], ids=["create", "update"])
@pytest.mark.parametrize(("status", "outcome", "body"), WRITES)
def test_the_status_classifies_a_failed_write(
    status: int, outcome: ResponseKind, body: Any, update: bool
) -> None:
    response = write(status, body, update=update)

    if status == 404 and update:
        outcome = ResponseKind.ABSENT
    assert response == Response(outcome, f"http_{status}", status)


@pytest.mark.parametrize(("status", "outcome", "body"), WRITES)
def test_a_resource_in_the_body_of_a_failed_write_changes_nothing(
    status: int, outcome: ResponseKind, body: Any
) -> None:
    assert write(status, STORED).kind is outcome


@pytest.mark.parametrize("status", [200, 201, 202, 203, 299])
@pytest.mark.parametrize("headers", [JSON, FHIR_JSON])
@pytest.mark.parametrize("update", [False, True])
def test_the_resource_under_a_2xx_is_stored(
    status: int, headers: httpx.Headers, update: bool
) -> None:
    response = write(status, STORED, headers, update=update)

    assert response == Response(
        ResponseKind.STORED, f"http_{status}", status, receipt=Receipt("1", None), resource=None
    )


NOT_THE_RESOURCE = [
    pytest.param(b"<html>Log in</html>", HTML, id="a login page"),
    pytest.param(b"<html>Log in</html>", JSON, id="a login page that says it is JSON"),
    pytest.param(STORED, HTML, id="the resource, said to be HTML"),
    pytest.param(STORED, httpx.Headers(), id="the resource, said to be nothing"),
    pytest.param({"error": "server_error"}, JSON, id="an error"),
    pytest.param({"success": False, "error": "x"}, JSON, id="an error of user management's kind"),
    pytest.param({"message": "Unauthorized"}, JSON, id="a gateway's message"),
    pytest.param({"resourceType": "OperationOutcome"}, FHIR_JSON, id="an OperationOutcome"),
    pytest.param({"resourceType": "Patient", "id": "1"}, JSON, id="another type"),
    pytest.param({"resourceType": "observation", "id": "1"}, JSON, id="the type in lower case"),
    pytest.param({"resourceType": ["Observation"]}, JSON, id="a type that is no text"),
    pytest.param({"id": "1"}, JSON, id="no type"),
    pytest.param([STORED], JSON, id="an array"),
    pytest.param("Observation", JSON, id="text"),
    pytest.param(None, JSON, id="null"),
    pytest.param(b"", JSON, id="nothing"),
    pytest.param(b'{"resourceType": "Observation", "id": ', JSON, id="half of the resource"),
    pytest.param(b'{"resourceType": "Observation", "id": "\xff"}', JSON, id="not UTF-8"),
    pytest.param(b"[" * 100_000, JSON, id="nested without end"),
]


@pytest.mark.parametrize("status", [200, 201, 204])
@pytest.mark.parametrize(("body", "headers"), NOT_THE_RESOURCE)
def test_anything_else_under_a_2xx_is_unknown(
    status: int, body: Any, headers: httpx.Headers
) -> None:
    assert write(status, body, headers) == Response(
        ResponseKind.UNKNOWN, "not_the_resource", status
    )


@pytest.mark.parametrize(("body", "headers"), NOT_THE_RESOURCE)
def test_a_look_up_finds_nothing_but_the_resource(body: Any, headers: httpx.Headers) -> None:
    assert look_up(200, body, headers) == Response(ResponseKind.UNKNOWN, "not_the_resource", 200)


def test_a_look_up_that_finds_the_resource_returns_it() -> None:
    stored = {**STORED, "meta": {"versionId": "3"}, "status": "final"}

    response = look_up(200, stored)

    assert (response.kind, response.resource) == (ResponseKind.FOUND, stored)
    assert response.receipt == Receipt("1", "3")


@pytest.mark.parametrize("status", [404, 410])
def test_a_look_up_knows_absence(status: int) -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": []}
    assert look_up(status, outcome) == Response(ResponseKind.ABSENT, f"http_{status}", status)


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("body", [b"", b"<h1>Not here</h1>", b"null", b'"no"'])
def test_an_absence_that_is_not_in_json_proves_nothing(status: int, body: bytes) -> None:
    html = httpx.Headers({"content-type": "text/html"})
    assert look_up(status, body).kind is ResponseKind.UNKNOWN
    assert look_up(status, {"message": "Not Found"}, html).kind is ResponseKind.UNKNOWN


def test_a_look_up_may_be_unauthorized() -> None:
    assert look_up(401) == Response(ResponseKind.UNAUTHORIZED, "http_401", 401)


@pytest.mark.parametrize(
    "status", [201, 204, 206, 301, 302, 304, 400, 403, 405, 408, 409, 422, 425, 429, 500, 503, 599]
)
def test_any_other_response_to_a_look_up_proves_nothing(status: int) -> None:
    assert look_up(status, STORED) == Response(ResponseKind.UNKNOWN, f"http_{status}", status)


@pytest.mark.parametrize("classify", [write, look_up])
@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_retry_after_is_kept_where_it_may_matter(classify: Any, status: int) -> None:
    response = classify(status, None, httpx.Headers({"Retry-After": "7"}))

    assert response.retry_after == 7


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("86400", 86_400.0),
        ("86401", 86_400.0),
        ("9" * 5000, 86_400.0),
        ("Thu, 01 Jan 2026 12:02:00 GMT", 120.0),
        ("Thursday, 01-Jan-26 12:02:00 GMT", 120.0),  # RFC 850: a recipient must accept it
        ("Thu Jan  1 12:02:00 2026", 120.0),  # asctime: likewise
        ("Thu, 01 Jan 2026 13:02:00 +0100", 120.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2099 12:00:00 GMT", 86_400.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("+7", None),
        ("7 seconds", None),
        ("1e3", None),
        ("7, 8", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("²", None),
        ("\N{ARABIC-INDIC DIGIT SEVEN}", None),
        ("Thu, 32 Jan 2026 12:00:00 GMT", None),
        ("Thu, 01 Jan 2026 12:00:00 +9999", None),
        ("Thu, 01 Jan 2026 12:00:00 +99999999999999999999", None),
        ("Thu, 01 Jan 2026 12:00:99999999999999999999 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    headers = httpx.Headers([(b"Retry-After", text.encode())])

    assert retry_after(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ('"fhirInteractions";r=0;t=30', 30.0),
        ('"requests";r=59999;t=60, "fhirInteractions";r=0;t=42', 42.0),
        ('"a";r=0;t=7, "b"; r=0; t=9', 9.0),
        ('"requests";r=59999;t=60', None),
        ('"a";r=0;t=999999999', 86400.0),
        ("r=0", None),
        ("", None),
    ],
)
def test_a_rate_limit_of_which_nothing_is_left_says_how_long(
    text: str, seconds: float | None
) -> None:
    assert retry_after(httpx.Headers({"RateLimit": text})) == seconds
    assert retry_after(httpx.Headers({"RateLimit": text, "Retry-After": "5"})) == 5


def test_no_retry_after_is_none() -> None:
    assert retry_after(httpx.Headers()) is None


def test_a_date_counts_from_now() -> None:
    in_1999 = httpx.Headers({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"})

    assert retry_after(in_1999) == 0.0


_FRAGMENTS = st.sampled_from(
    f"Mon, 1 31 Jan 2026 99999 0000 - + 00:00:00 61:61 : GMT +9999 -0000 ( ) , . é {10**20}".split()
)


@given(st.lists(_FRAGMENTS, max_size=10).map(" ".join) | st.text(max_size=40))
def test_no_retry_after_raises(text: str) -> None:
    headers = httpx.Headers([(b"Retry-After", text.encode(errors="replace"))])

    seconds = retry_after(headers, now=NOW)

    assert seconds is None or 0 <= seconds <= 86_400


BASE = "https://api.1up.health/r4/Observation"


@pytest.mark.parametrize(
    ("body", "headers", "receipt"),
    [
        pytest.param({"id": "1"}, {}, Receipt("1", None), id="id only"),
        pytest.param(
            {"id": "1", "meta": {"versionId": "2"}},
            {"ETag": 'W/"9"', "Location": f"{BASE}/8/_history/9"},
            Receipt("1", "2"),
            id="the body counts first",
        ),
        pytest.param({"id": "1"}, {"ETag": 'W/"2"'}, Receipt("1", "2"), id="weak ETag"),
        pytest.param({"id": "1"}, {"ETag": '"2"'}, Receipt("1", "2"), id="strong ETag"),
        pytest.param({"id": "1"}, {"ETag": "2"}, Receipt("1", "2"), id="bare ETag"),
        pytest.param({"id": "1"}, {"ETag": 'W/""'}, Receipt("1", None), id="empty ETag"),
        pytest.param(
            {"id": "1", "meta": {"versionId": ""}},
            {"ETag": 'W/"2"'},
            Receipt("1", "2"),
            id="an empty version is none",
        ),
        pytest.param(
            {}, {"Location": f"{BASE}/1/_history/2"}, Receipt("1", "2"), id="absolute Location"
        ),
        pytest.param(
            {}, {"Location": "Observation/1/_history/2"}, Receipt("1", "2"), id="relative Location"
        ),
        pytest.param({}, {"Location": "/r4/Observation/1"}, Receipt("1", None), id="no history"),
        pytest.param({}, {"Location": f"{BASE}/1/"}, Receipt("1", None), id="trailing slash"),
        pytest.param({}, {"Location": f"{BASE}/a%2Fb"}, Receipt("a/b", None), id="encoded id"),
        pytest.param(
            {"id": ""}, {"Location": f"{BASE}/1"}, Receipt("1", None), id="an empty id is none"
        ),
        pytest.param({"id": 1}, {}, Receipt(None, None), id="an id that is a number"),
        pytest.param({}, {}, Receipt(None, None), id="nothing"),
        pytest.param({}, {"Location": BASE}, Receipt(None, None), id="the type's address"),
        pytest.param({}, {"Location": "/login"}, Receipt(None, None), id="another page"),
        pytest.param(
            {},
            {"Location": "https://api.1up.health/r4/Patient/1"},
            Receipt(None, None),
            id="another type's address",
        ),
        pytest.param(
            {"id": "1", "meta": None, "extra": {}}, {}, Receipt("1", None), id="meta is null"
        ),
        pytest.param(
            {"id": "1", "meta": {"versionId": 3}}, {}, Receipt("1", None), id="version is a number"
        ),
    ],
)
def test_the_receipt_is_what_1uphealth_calls_the_resource(
    body: dict[str, Any], headers: dict[str, str], receipt: Receipt
) -> None:
    response = write(
        201, {"resourceType": "Observation", **body}, httpx.Headers({**JSON, **headers})
    )

    assert response.receipt == receipt


_KEY: Any = None  # aiohttp's connection key: only for its messages


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (
            aiohttp.ClientConnectorError(_KEY, ConnectionRefusedError(111, "x")),
            ResponseKind.NOT_SENT,
        ),
        (aiohttp.ClientConnectorDNSError(_KEY, OSError(1, "x")), ResponseKind.NOT_SENT),
        (aiohttp.ConnectionTimeoutError(), ResponseKind.NOT_SENT),
        # A connection that was cut after sending.
        (aiohttp.ServerDisconnectedError(), ResponseKind.UNKNOWN),
        (aiohttp.ClientOSError(104, "x"), ResponseKind.UNKNOWN),
        (aiohttp.SocketTimeoutError(), ResponseKind.UNKNOWN),
        (aiohttp.ClientPayloadError(), ResponseKind.UNKNOWN),
        (httpx.DecodingError("x"), ResponseKind.UNKNOWN),
        (aiohttp.ClientConnectionError("x"), ResponseKind.UNKNOWN),
        (OSError("x"), ResponseKind.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_only_a_connection_never_made_proves_that_nothing_was_sent(
    error: Exception, outcome: ResponseKind
) -> None:
    assert classify_error(error).kind is outcome


def test_neither_texts_nor_resources_are_in_the_repr_of_a_response() -> None:
    secret = {"resourceType": "Observation", "id": "1", "note": "canary"}

    assert "canary" not in repr(look_up(200, secret))
    assert "canary" not in repr(write(201, secret))
    assert "canary" not in repr(write(400, {"issue": [{"diagnostics": "canary"}]}))


RECORD = {"resourceType": "Observation", "id": "own", "status": "final", "note": [{"text": "a"}]}


def answered(
    stored: dict[str, Any], *, target: str | None = None, keeps_ids: bool = False
) -> Response:
    """The response to `RECORD`, sent to `target` or created."""
    return classify_write(
        200,
        JSON,
        orjson.dumps(stored),
        "Observation",
        destination=oneup(),
        write=Update(target) if target else Create(),
        sent=orjson.dumps(RECORD),
        keeps_ids=keeps_ids,
    )


@pytest.mark.parametrize(
    ("stored", "differs"),
    [
        (RECORD, False),
        ({**RECORD, "id": "9f", "identifier": [{"value": "9"}], "meta": {}}, False),
        ({**RECORD, "status": "amended"}, True),
        ({"resourceType": "Observation", "id": "own"}, True),
        ({**RECORD, "issued": "2026-01-01T00:00:00Z"}, True),
    ],
)
def test_other_content_under_a_2xx_is_stored_and_said_to_differ(
    stored: dict[str, Any], differs: bool
) -> None:
    response = answered(stored)
    assert (response.kind, response.code) == (ResponseKind.STORED, "http_200")
    assert response.differs is differs


@pytest.mark.parametrize(
    ("target", "keeps_ids", "answered_id", "kind", "code"),
    [
        # A create: any id will do, unless the destination is known to keep ids.
        (None, False, "own", ResponseKind.STORED, "http_200"),
        (None, False, "9f", ResponseKind.STORED, "http_200"),
        (None, True, "own", ResponseKind.STORED, "http_200"),
        (None, True, "9f", ResponseKind.UNKNOWN, "another_id"),
        # An update: only the id that it went to.
        ("9f", False, "9f", ResponseKind.STORED, "http_200"),
        ("9f", True, "9f", ResponseKind.STORED, "http_200"),
        ("9f", False, "own", ResponseKind.UNKNOWN, "another_id"),
        ("9f", True, "own", ResponseKind.UNKNOWN, "another_id"),
        ("own", True, "9f", ResponseKind.UNKNOWN, "another_id"),
    ],
)
def test_another_id_than_the_known_one_under_a_2xx_is_unknown(
    target: str | None, keeps_ids: bool, answered_id: str, kind: ResponseKind, code: str
) -> None:
    response = answered({**RECORD, "id": answered_id}, target=target, keeps_ids=keeps_ids)
    assert (response.kind, response.code) == (kind, code)
    assert response.receipt is not None
    assert response.receipt.id == answered_id


@pytest.mark.parametrize(("target", "keeps_ids", "id_"), [("9f", False, "9f"), (None, True, "own")])
def test_a_response_without_an_id_is_about_the_known_one(
    target: str | None, keeps_ids: bool, id_: str
) -> None:
    stored = {name: value for name, value in RECORD.items() if name != "id"}
    response = answered(stored, target=target, keeps_ids=keeps_ids)
    assert (response.kind, response.receipt) == (ResponseKind.STORED, Receipt(id_, None))


@pytest.mark.parametrize(
    ("stored", "target", "assigned"),
    [
        (RECORD, None, False),
        ({**RECORD, "id": "9f"}, None, True),
        ({**RECORD, "id": "9f"}, "9f", False),
        ({"resourceType": "Observation"}, None, False),
    ],
)
def test_a_receipt_says_whether_the_destination_chose_its_id(
    stored: dict[str, Any], target: str | None, assigned: bool
) -> None:
    receipt = answered(stored, target=target).receipt
    assert receipt is not None
    assert receipt.assigned is assigned


def test_a_create_under_another_id_is_stored_if_our_content_is_there() -> None:
    sent = orjson.dumps(RECORD)
    response = answered({**RECORD, "id": "9f"}, keeps_ids=True)
    ours = look_up(200, {**RECORD, "id": "9f", "meta": {"versionId": "3"}})

    stored = of_assigned_id(response, ours, sent)
    assert (stored.kind, stored.code) == (ResponseKind.STORED, "another_id")
    assert stored.receipt == Receipt("9f", "3")
    assert stored.receipt is not None
    assert stored.receipt.assigned

    for other in (look_up(200, {**RECORD, "status": "amended"}), look_up(404, {}), look_up(500)):
        assert of_assigned_id(response, other, sent) == response


def test_a_receipt_of_another_record_makes_the_response_unknown() -> None:
    response = of_another_record(answered({**RECORD, "id": "9f"}))
    assert response == Response(ResponseKind.UNKNOWN, "another_record", 200)
