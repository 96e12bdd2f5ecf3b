"""The API client against an API over real HTTP."""

import asyncio
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.uplift.cli.fake_uplift import KEY, FakeUplift, problem, serving
from uplift.cli.push.client import (
    ApiClient,
    ApiRefused,
    ApiUnavailable,
    RecordsNotAccepted,
    _retry_after,
)
from uplift.cli.push.records import Record

RECORD = Record(
    "here", "4.0.1", "Condition", b'{ "resourceType":"Condition" }', "St. Müller & Co", "a/b"
)


@pytest.fixture
def fake() -> Iterator[FakeUplift]:
    with serving(FakeUplift()) as serving_fake:
        yield serving_fake


def client(fake: FakeUplift, *, key: str = KEY, patience: float = 20.0) -> ApiClient:
    return ApiClient(fake.url, key, patience=patience, first_pause=0.01)


def responses(fake: FakeUplift, *responses: Response) -> None:
    """The API gives these answers first."""
    waiting = list(responses)
    fake.before = lambda _: waiting.pop(0) if waiting else None


async def test_records_are_sent_with_their_own_bytes_and_their_facts_around_them(
    fake: FakeUplift,
) -> None:
    plain = Record("there", "DSTU2", "Patient", b'{"resourceType":"Patient", "x": 1.50e0}')
    async with client(fake) as api:
        lines = await api.submit("alice", [RECORD, plain, RECORD])
    first, second = fake.uploads
    assert [(line.id, line.duplicate) for line in lines] == [
        (first.id, False),
        (second.id, False),
        (first.id, True),
    ]
    assert (first.body, second.body) == (RECORD.body, plain.body)
    assert first.labels == {
        "fhirVersion": "4.0.1",
        "source": "St. Müller & Co",
        "recordId": "a/b",
    }
    assert second.labels == {"fhirVersion": "DSTU2"}
    assert fake.content_types == {"application/x-ndjson"}
    assert [query for _, _, query in fake.requests] == ["user=alice"]


async def test_a_line_that_is_not_taken_says_why(fake: FakeUplift) -> None:
    fake.judge_line = lambda _: {"status": 400, "title": "Bad", "detail": "It is no JSON."}
    async with client(fake) as api:
        (line,) = await api.submit("alice", [RECORD])
    assert (line.id, str(line.problem)) == (None, "the API responds 400: It is no JSON.")


async def test_an_answer_that_leaves_lines_out_is_not_believed(fake: FakeUplift) -> None:
    lines = [{"line": 1, "id": "u-1", "status": "queued", "duplicate": False}]
    responses(fake, JSONResponse({"lines": lines}, 202))
    async with client(fake) as api:
        with pytest.raises(ApiUnavailable, match="not Uplift's API"):
            await api.submit("alice", [RECORD, RECORD])


@pytest.mark.parametrize("code", [408, 429, 502, 503, 504, 500])
async def test_a_busy_api_is_asked_again(fake: FakeUplift, code: int) -> None:
    responses(fake, problem(code, "Later"), problem(code, "Later"))
    async with client(fake) as api:
        await api.submit("alice", [RECORD])
    assert len(fake.requests) == 3
    assert len(fake.uploads) == 1


async def test_retry_after_is_a_floor(fake: FakeUplift) -> None:
    responses(fake, problem(429, "Later", {"Retry-After": "1"}))
    loop = asyncio.get_running_loop()
    async with client(fake) as api:
        begun = loop.time()
        await api.submit("alice", [RECORD])
    assert loop.time() - begun >= 1.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("", 0), ("7", 7), ("-3", 0), ("soon", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("²", 0)],
)
def test_retry_after_is_read(value: str, seconds: float) -> None:
    response = httpx.Response(503, headers=[(b"Retry-After", value.encode())])
    assert _retry_after(response) == seconds


def test_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < _retry_after(httpx.Response(503, headers={"Retry-After": date})) <= 100


async def test_an_api_that_goes_on_failing_these_records_does_not_stop_the_others(
    fake: FakeUplift,
) -> None:
    fake.before = lambda _: problem(500, "Internal Server Error")
    async with client(fake) as api:
        with pytest.raises(RecordsNotAccepted, match="500"):
            await api.submit("alice", [RECORD])
    assert len(fake.requests) == 3


async def test_an_api_that_stays_busy_ends_the_patience(fake: FakeUplift) -> None:
    fake.before = lambda _: problem(503, "Later")
    async with client(fake, patience=0.2) as api:
        with pytest.raises(ApiUnavailable, match="it responds 503"):
            await api.submit("alice", [RECORD])
    assert len(fake.requests) > 1


async def test_a_connection_that_comes_back_is_used() -> None:
    fake = FakeUplift()
    with serving(fake):
        pass
    port = int(fake.url.rpartition(":")[2])
    async with ApiClient(fake.url, KEY, patience=20, first_pause=0.05) as api:
        sending = asyncio.create_task(api.submit("alice", [RECORD]))
        await asyncio.sleep(0.2)
        assert not sending.done()
        server = await asyncio.start_server(_one_answer, "127.0.0.1", port)
        try:
            assert [line.id for line in await sending] == ["u-1"]
        finally:
            server.close()
            await server.wait_closed()


async def _one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = b'{"lines": [{"line": 1, "id": "u-1", "status": "queued"}]}'
    writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("code", [400, 413, 415, 422])
async def test_an_answer_about_the_records_says_the_api_s_own_reason(
    fake: FakeUplift, code: int
) -> None:
    responses(fake, problem(code, "No good"))
    async with client(fake) as api:
        with pytest.raises(
            RecordsNotAccepted, match=rf"the API responds {code}: No good \(detail\)"
        ):
            await api.submit("alice", [RECORD])
    assert len(fake.requests) == 1


async def test_a_wrong_key_says_where_to_give_one(fake: FakeUplift) -> None:
    async with client(fake, key="wrong") as api:
        with pytest.raises(ApiRefused, match="UPLIFT_API_KEY") as failure:
            await api.check("alice")
    assert "wrong" not in str(failure.value)


async def test_an_unknown_user_says_how_to_create_it(fake: FakeUplift) -> None:
    async with client(fake) as api:
        with pytest.raises(
            ApiRefused, match=r"no user 'bob'.*uplift users add bob.*POST .*/v1/users"
        ):
            await api.check("bob")


async def test_a_key_that_may_not_submit_is_told(fake: FakeUplift) -> None:
    responses(fake, problem(403, "Forbidden"))
    async with client(fake) as api:
        with pytest.raises(ApiRefused, match="backend"):
            await api.submit("alice", [RECORD])


@pytest.mark.parametrize(
    "response",
    [
        PlainTextResponse("not found", 404),
        PlainTextResponse("<html>", 200),
        Response(status_code=307, headers={"Location": "http://198.51.100.1/"}),
    ],
)
async def test_another_server_at_that_address_is_noticed(
    fake: FakeUplift, response: Response
) -> None:
    responses(fake, response)
    async with client(fake) as api:
        with pytest.raises(ApiUnavailable, match="--api"):
            await api.check("alice")
    assert len(fake.requests) == 1


async def test_nothing_at_the_address_is_told_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with ApiClient(url, KEY) as api:
            with pytest.raises(ApiUnavailable, match="uplift up"):
                await api.check("alice")


async def test_the_key_does_not_follow_a_link_to_another_host(fake: FakeUplift) -> None:
    seen: list[Request] = []
    fake.before = lambda request: seen.append(request)
    async with client(fake) as api:
        page = await api.uploads("http://198.51.100.1/v1/uploads?user=alice&after=0")
    assert page.uploads == []
    assert [request.url.hostname for request in seen] == ["127.0.0.1"]
