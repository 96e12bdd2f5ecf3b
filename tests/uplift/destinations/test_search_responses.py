"""Every page that a search may have, and what it says about one upload."""

from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from uplift.destinations.receipts import Receipt
from uplift.destinations.responses import (
    Response,
    ResponseKind,
    classify_look_up,
    classify_search,
)

JSON = httpx.Headers({"Content-Type": "application/fhir+json", "ETag": 'W/"9"'})
HTML = httpx.Headers({"Content-Type": "text/html"})
OURS = {"resourceType": "Observation", "id": "obs-1", "status": "final", "value": 72.0}
STORED = {
    "value": 72,
    "status": "final",
    "resourceType": "Observation",
    "id": "7e57",
    "meta": {"versionId": "1", "lastUpdated": "2026-01-01T12:00:00.000+01:00"},
}
OTHER = {**STORED, "id": "other", "status": "amended"}
NEXT = {"relation": "next", "url": "https://api.1up.health/r4/Observation?_skip=10"}


def page(*resources: Any, **elements: Any) -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": "self", "url": "https://api.1up.health/r4/Observation"}],
        "entry": [{"resource": each} for each in resources],
        **elements,
    }


def outcome(*severities: Any) -> dict[str, Any]:
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": severity, "code": "processing"} for severity in severities],
    }


def search(body: Any, status: int = 200, headers: httpx.Headers = JSON) -> Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return classify_search(status, headers, content, "Observation", OURS)


@pytest.mark.parametrize(
    "body",
    [
        page(STORED),
        page(OTHER, STORED),
        page(STORED, OTHER, link=[NEXT]),
        page(STORED, {**STORED, "id": "twin"}),
        page(outcome("warning"), STORED),
    ],
)
def test_a_search_finds_the_first_with_our_content(body: dict[str, Any]) -> None:
    response = search(body)
    assert response.kind is ResponseKind.FOUND
    # Its own version, not the page's ETag.
    assert response.receipt == Receipt("7e57", "1", datetime(2026, 1, 1, 11, tzinfo=UTC))
    assert response.resource == STORED
    assert response.next_page is None


def test_the_headers_of_a_page_are_not_those_of_the_resource() -> None:
    bare = {name: value for name, value in STORED.items() if name != "meta"}
    assert search(page(bare)).receipt == Receipt("7e57", None)


@pytest.mark.parametrize(
    "body",
    [
        page(),
        {"resourceType": "Bundle", "type": "searchset", "total": 0},
        page(OTHER),
        page({**STORED, "resourceType": "Condition"}),
        page(outcome("warning", "information")),
        page(OTHER, link=[{"relation": "prev", "url": "https://api.1up.health/r4/Observation"}]),
    ],
)
def test_a_page_without_our_content_and_without_a_next_one_is_an_absence(
    body: dict[str, Any],
) -> None:
    response = search(body)
    assert (response.kind, response.next_page) == (ResponseKind.ABSENT, None)


def test_a_page_without_our_content_leads_to_the_next() -> None:
    response = search(page(OTHER, link=[{"relation": "self"}, NEXT]))
    assert (response.kind, response.next_page) == (ResponseKind.ABSENT, NEXT["url"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_a_search"),
        (b"{", "not_a_search"),
        ([], "not_a_search"),
        (STORED, "not_a_search"),
        ({"error": "server_error"}, "not_a_search"),
        (page(type="history"), "not_a_search"),
        (page(entry=None), "not_a_search"),
        (page(entry={"resource": STORED}), "not_a_search"),
        (page(entry=["text"]), "not_a_search"),
        (page(link="next"), "not_a_search"),
        (page(link=[{"relation": "next"}]), "not_a_search"),
        (page(link=[{"relation": "next", "url": 7}]), "not_a_search"),
        (page(entry=[{"fullUrl": "https://api.1up.health/r4/Observation/1"}]), "search_incomplete"),
        (page(None), "search_incomplete"),
        (page(outcome("warning", "error")), "search_incomplete"),
        (page(outcome("fatal")), "search_incomplete"),
        (page(outcome(None)), "search_incomplete"),
        (page({"resourceType": "OperationOutcome"}), "search_incomplete"),
    ],
)
def test_anything_else_under_a_200_proves_nothing(body: Any, code: str) -> None:
    response = search(body)
    assert (response.kind, response.code) == (ResponseKind.UNKNOWN, code)


def test_a_page_that_is_not_json_proves_nothing() -> None:
    assert search(page(), headers=HTML).kind is ResponseKind.UNKNOWN


@pytest.mark.parametrize(
    "status", [201, 204, 302, 400, 403, 404, 405, 408, 410, 422, 429, 500, 503]
)
def test_any_other_status_proves_nothing(status: int) -> None:
    headers = httpx.Headers({**JSON, "Retry-After": "7"})
    response = search(page(), status, headers)
    assert (response.kind, response.code) == (ResponseKind.UNKNOWN, f"http_{status}")
    assert response.retry_after == 7


def test_a_search_may_be_unauthorized() -> None:
    assert search({"message": "Unauthorized"}, 401).kind is ResponseKind.UNAUTHORIZED


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-01-01T12:00:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T12:00:00.5-05:00", datetime(2026, 1, 1, 17, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-01T12:00:00", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("yesterday", None),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_when_it_was_stored_is_an_instant_or_not_known(text: Any, at: datetime | None) -> None:
    stored = {**STORED, "meta": {"lastUpdated": text}}
    receipt = classify_look_up(200, JSON, orjson.dumps(stored), "Observation").receipt
    assert receipt is not None
    assert receipt.stored_at == at
