"""The requests of the operations, and how their replies are read."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from uplift.client import (
    CallError,
    Conflict,
    InvalidRequest,
    KeyReused,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotUplift,
    ProblemAnswer,
    TryLater,
    calls,
    user_operations,
)
from uplift.client.messages import Reply, error_of

_RESOURCE = b'{ "resourceType": "Condition",\n "onsetAge": {"value": 1.50e0} }'


def test_a_record_is_sent_with_its_own_bytes_and_its_names_around_them() -> None:
    request = calls.submit(
        _RESOURCE, fhir_version="R4", user="alice", source='St. "Müller"', record_id="a/b"
    ).request
    assert request.target == "/v1/uploads"
    assert request.body.endswith(b'"resource":' + _RESOURCE + b"}")
    envelope = json.loads(request.body)
    assert envelope.pop("resource") == json.loads(_RESOURCE)
    assert envelope == {
        "user": "alice",
        "fhirVersion": "R4",
        "source": 'St. "Müller"',
        "recordId": "a/b",
    }


def test_a_resource_may_be_text_or_a_mapping() -> None:
    for resource in ('{"resourceType":"Patient"}', {"resourceType": "Patient"}):
        body = calls.submit(resource, fhir_version="R4").request.body
        assert body == b'{"fhirVersion":"R4","resource":{"resourceType":"Patient"}}'


def test_each_submission_has_an_idempotency_key_of_its_own() -> None:
    keys = {
        calls.submit(_RESOURCE, fhir_version="R4").request.headers["Idempotency-Key"]
        for _ in range(3)
    }
    assert len(keys) == 3
    own = calls.submit(_RESOURCE, fhir_version="R4", idempotency_key='my "key" \\1')
    assert own.request.headers["Idempotency-Key"] == '"my \\"key\\" \\\\1"'


def test_filters_are_a_query() -> None:
    call = calls.uploads(
        user="a&b",
        status=["rejected", "refused"],
        updated_since=datetime(2026, 11, 23, 10, tzinfo=UTC),
        limit=2,
    )
    assert call.request.target == (
        "/v1/uploads?status=rejected&status=refused&user=a%26b"
        "&updatedSince=2026-11-23T10%3A00%3A00%2B00%3A00&limit=2"
    )


def test_names_are_one_segment_of_the_path() -> None:
    assert user_operations.user("Patient/1 ü").request.target == "/v1/users/Patient%2F1%20%C3%BC"
    assert calls.upload("../users").request.target == "/v1/uploads/..%2Fusers"
    assert user_operations.read_back("a", "R4", "Patient/1/$everything").request.target == (
        "/v1/users/a/fhir/R4/Patient/1/$everything"
    )


def test_members_that_are_not_given_are_not_sent() -> None:
    call = calls.redrive_many(
        status=["expired"], updated_since=datetime(2026, 11, 23, 10, tzinfo=UTC)
    )
    assert json.loads(call.request.body) == {
        "status": ["expired"],
        "updatedSince": "2026-11-23T10:00:00Z",
    }
    assert json.loads(calls.redrive_many(everything=True).request.body) == {"all": True}


def _page(following: str | None) -> Reply:
    return Reply(200, {}, json.dumps({"uploads": [], "next": following}).encode())


def test_a_page_leads_to_the_next_but_never_to_another_host() -> None:
    page = calls.uploads(user="alice").read(_page("http://198.51.100.1/v1/uploads?after=1"))
    assert page.next is not None
    assert page.next.request.target == "/v1/uploads?after=1"
    assert page.next.read(_page(None)).next is None


def test_a_search_follows_the_links_of_its_bundles() -> None:
    link = "https://uplift.example.com/below/v1/users/alice/fhir/R4/Condition?_skip=10"
    bundle = {
        "resourceType": "Bundle",
        "link": [{"relation": "self", "url": "x"}, {"relation": "next", "url": link}],
        "entry": [{"resource": {"resourceType": "Condition", "id": "1"}}, {"fullUrl": "y"}],
    }
    call = user_operations.search("alice", "R4", "Condition", {"_count": "1"})
    assert call.request.target == "/v1/users/alice/fhir/R4/Condition?_count=1"
    page = call.read(Reply(200, {}, json.dumps(bundle).encode()))
    assert page.items == [{"resourceType": "Condition", "id": "1"}]
    assert page.next is not None
    assert page.next.request.target == "/v1/users/alice/fhir/R4/Condition?_skip=10"


def test_something_else_than_uplift_is_noticed() -> None:
    for content in (b"<html>", b"{}", b"[]", b""):
        with pytest.raises(NotUplift):
            calls.upload("1").read(Reply(200, {}, content))


_PROBLEM = {
    "type": "about:blank",
    "title": "Title",
    "status": 400,
    "detail": "Do this.",
    "code": "some_code",
    "errors": [{"where": "body.x", "what": "wrong"}],
}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (413, InvalidRequest),
        (401, NotAuthenticated),
        (403, NotAllowed),
        (404, NotFound),
        (408, TryLater),
        (409, Conflict),
        (422, KeyReused),
        (429, TryLater),
        (500, TryLater),
        (503, TryLater),
    ],
)
def test_a_problem_is_an_error_with_what_the_api_says(status: int, kind: type[CallError]) -> None:
    headers = {
        "content-type": "application/problem+json",
        "x-request-id": "0123456789abcdef",
        "retry-after": "9",
    }
    error = error_of(Reply(status, headers, msgspec.json.encode(_PROBLEM)))
    assert type(error) is kind
    assert isinstance(error, ProblemAnswer)
    assert (error.status, error.code, error.title, error.detail) == (
        status,
        "some_code",
        "Title",
        "Do this.",
    )
    assert (error.request_id, error.retry_after) == ("0123456789abcdef", 9)
    assert str(error) == f"{status}: Do this. body.x: wrong (request 0123456789abcdef)"


@pytest.mark.parametrize(("status", "kind"), [(413, InvalidRequest), (502, TryLater)])
def test_a_proxy_may_refuse_in_its_own_words(status: int, kind: type[CallError]) -> None:
    error = error_of(Reply(status, {"content-type": "text/html"}, b"<html>"))
    assert type(error) is kind


@pytest.mark.parametrize("status", [302, 307, 404, 405])
def test_another_server_is_noticed(status: int) -> None:
    assert type(error_of(Reply(status, {"content-type": "text/html"}, b""))) is NotUplift
