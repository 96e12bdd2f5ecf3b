"""What a person is told when the API cannot be used. The client itself: tests/uplift/client."""

import socket
from collections.abc import Iterator

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.uplift.cli.fake_uplift import KEY, FakeUplift, problem, serving
from uplift.cli.push.client import ApiClient, ApiError, ApiRefused, ApiUnavailable
from uplift.cli.push.network import NetworkError
from uplift.client import Record

RECORD = Record(b'{"resourceType":"Condition"}', "R4", "St. Müller & Co", "a/b")


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


async def test_a_busy_api_is_there(fake: FakeUplift) -> None:
    responses(fake, problem(503, "Later"))
    async with client(fake) as api:
        await api.check("alice")
    assert len(fake.requests) == 1


async def test_an_api_that_stays_busy_is_unavailable(fake: FakeUplift) -> None:
    fake.before = lambda _: problem(503, "Later")
    async with client(fake, patience=0.2) as api:
        with pytest.raises(ApiUnavailable, match="it responds 503"):
            await api.submit("alice", [RECORD])
    assert len(fake.requests) > 1


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
        with pytest.raises(ApiRefused, match=r"for alice: Forbidden \(detail\).*submit"):
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


async def test_an_answer_that_leaves_lines_out_is_not_believed(fake: FakeUplift) -> None:
    lines = [{"line": 1, "id": "u-1", "status": "queued", "duplicate": False}]
    responses(fake, JSONResponse({"lines": lines}, 202))
    async with client(fake) as api:
        with pytest.raises(ApiUnavailable, match="not Uplift's API"):
            await api.submit("alice", [RECORD, RECORD])


async def test_an_upload_that_is_gone_is_told(fake: FakeUplift) -> None:
    async with client(fake) as api:
        with pytest.raises(ApiUnavailable, match="no such upload"):
            await api.upload("u-1")


async def test_another_problem_is_told_in_the_api_s_own_words(fake: FakeUplift) -> None:
    responses(fake, problem(400, "No good"))
    async with client(fake) as api:
        with pytest.raises(ApiError, match=r"The API responds 400: No good \(detail\)"):
            await api.check("alice")


async def test_nothing_at_the_address_is_told_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with ApiClient(url, KEY) as api:
            with pytest.raises(ApiUnavailable, match=r"nothing listens there.*uplift up"):
                await api.check("alice")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8080", "http://x:y", ""])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(NetworkError, match="is not a URL"):
        ApiClient(url, KEY)
