"""Both clients send what the rules say, over httpx."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol, TypeVar

import httpx
import pytest

from uplift.client import (
    AsyncUplift,
    CallError,
    NoAnswer,
    NotFinal,
    Record,
    RecordResult,
    TryLater,
    Uplift,
    Upload,
    user_operations,
)

Result = TypeVar("Result")
Handler = Callable[[httpx.Request], httpx.Response]

_URL = "https://uplift.example.com/below"
_RECORDS = [Record({"resourceType": "Patient"}, "R4", record_id=str(each)) for each in range(450)]


class Client(Protocol):
    """Calls a method of either client, and gathers what a list gives."""

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any: ...


def _blocking(handler: Handler) -> Client:
    def call(method: str, *args: Any, **kwargs: Any) -> Any:
        transport = httpx.MockTransport(handler)
        with Uplift(_URL, "the-key", first_pause=0.001, transport=transport) as client:
            found = getattr(client, method)(*args, **kwargs)
            return list(found) if isinstance(found, Iterator) else found

    return call


def _asynchronous(handler: Handler) -> Client:
    async def awaited(method: str, *args: Any, **kwargs: Any) -> Any:
        transport = httpx.MockTransport(handler)
        async with AsyncUplift(_URL, "the-key", first_pause=0.001, transport=transport) as client:
            found = getattr(client, method)(*args, **kwargs)
            if isinstance(found, AsyncIterator):
                return [each async for each in found]
            return await found

    return lambda method, *args, **kwargs: asyncio.run(awaited(method, *args, **kwargs))


@pytest.fixture(params=[_blocking, _asynchronous])
def client(request: pytest.FixtureRequest) -> Callable[[Handler], Client]:
    made: Callable[[Handler], Client] = request.param
    return made


def _batch(request: httpx.Request) -> httpx.Response:
    lines = [
        {"line": number, "id": json.loads(line)["recordId"], "status": "queued"}
        for number, line in enumerate(request.content.splitlines(), start=1)
    ]
    return httpx.Response(202, json={"lines": lines})


def test_a_request_has_the_key_and_keeps_the_path_of_the_address(
    client: Callable[[Handler], Client],
) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(204)

    client(handler)("revoke_device_tokens", "Patient/1")
    [request] = seen
    assert request.headers["Authorization"] == "Bearer the-key"
    assert request.url.raw_path == b"/below/v1/users/Patient%2F1/device-tokens"


def test_records_of_an_iterator_go_in_several_requests(
    client: Callable[[Handler], Client],
) -> None:
    sizes: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sizes.append(len(request.content.splitlines()))
        return _batch(request)

    results: list[RecordResult] = client(handler)("submit_batches", iter(_RECORDS), user="alice")
    assert [each.id for each in results] == [each.record_id for each in _RECORDS]
    assert [each.record for each in results] == _RECORDS
    assert sizes == [200, 200, 50]


def test_no_record_makes_no_request(client: Callable[[Handler], Client]) -> None:
    assert client(lambda _: httpx.Response(500))("submit_batches", [], user="alice") == []


def test_the_pages_of_a_list_are_read_one_after_the_other(
    client: Callable[[Handler], Client],
) -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        line = {"line": len(seen), "id": "u", "status": "queued", "duplicate": False}
        following = "/v1/batches/b/lines?after=1&limit=1" if len(seen) == 1 else None
        return httpx.Response(200, json={"lines": [line], "next": following})

    assert [each.line for each in client(handler)("batch_lines", "b", limit=1)] == [1, 2]
    assert seen == [
        "/below/v1/batches/b/lines?limit=1",
        "/below/v1/batches/b/lines?after=1&limit=1",
    ]


def test_a_busy_api_is_asked_again(client: Callable[[Handler], Client]) -> None:
    replies = [httpx.Response(503), httpx.Response(429), httpx.Response(200, json={"pauses": []})]
    assert client(lambda _: replies.pop(0))("pauses") == []
    assert replies == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ConnectError("secret"), "nothing listens there"),
        (httpx.ReadTimeout("secret"), "it does not answer in time"),
        (httpx.RemoteProtocolError("secret"), "the connection breaks"),
    ],
)
def test_a_broken_connection_is_told_without_its_details(
    client: Callable[[Handler], Client], error: Exception, reason: str
) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(NoAnswer, match=f"^No answer of the API: {reason}.$"):
        client(handler)("call", user_operations.pauses(), patience=0)


def test_a_redirect_is_not_followed(client: Callable[[Handler], Client]) -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(307, headers={"Location": "https://198.51.100.1/"})

    with pytest.raises(CallError, match="leads to another address"):
        client(handler)("pauses")
    assert len(seen) == 1


def test_a_wait_ends_with_its_time(client: Callable[[Handler], Client]) -> None:
    upload = {
        "id": "u-1",
        "status": "parked",
        "final": False,
        "user": "alice",
        "fhirVersion": "R4",
        "resourceType": "Condition",
        "createdAt": "2026-11-23T10:00:00Z",
        "updatedAt": "2026-11-23T10:00:00Z",
        "statusUrl": "/v1/uploads/u-1",
    }

    def handler(request: httpx.Request) -> httpx.Response:
        if "If-None-Match" in request.headers:
            return httpx.Response(304, headers={"ETag": '"1"', "Retry-After": "60"})
        return httpx.Response(200, json=upload, headers={"ETag": '"1"'})

    with pytest.raises(NotFinal, match="parked"):
        client(handler)("wait_until_final", "u-1", 0.05)


def test_what_a_client_shows_of_itself_has_no_key() -> None:
    with Uplift(_URL, "the-key") as opened:
        assert "the-key" not in repr(vars(opened))
    with pytest.raises(TryLater) as failure:
        _blocking(lambda _: httpx.Response(503, headers={"Retry-After": "3600"}))("pauses")
    assert "the-key" not in repr(failure.value)


@pytest.mark.parametrize(("kind", "iterator"), [(Uplift, Iterator), (AsyncUplift, AsyncIterator)])
def test_help_shows_what_a_method_gives(kind: type, iterator: Any) -> None:
    submit, uploads = (inspect.signature(getattr(kind, each)) for each in ("submit", "uploads"))

    assert list(submit.parameters)[:3] == ["self", "resource", "fhir_version"]
    assert submit.return_annotation is Upload
    assert uploads.return_annotation == iterator[Upload]
