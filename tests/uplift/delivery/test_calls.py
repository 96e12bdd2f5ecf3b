"""Calls for one upload: what is reported to the rate limiter, and whether a write was under way."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, cast
from uuid import UUID

import pytest

from tests.uplift.delivery.test_outcome import CLAIM, OPENED
from tests.uplift.destinations.known import oneup
from uplift.delivery.calls import Calls
from uplift.delivery.heartbeats import Heartbeats
from uplift.delivery.rate_limiter import RateLimiter
from uplift.destinations.client import FhirClient
from uplift.destinations.requests import Create
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import Stopping, TokenUnavailable, WriteFailed
from uplift.tokens.access import TokenAccess
from uplift.tokens.channels import Channel, Channels
from uplift.tokens.person import AccessToken, Person

STORED = Response(ResponseKind.STORED, "http_201", 201)
REFUSED_TOKEN = Response(ResponseKind.UNAUTHORIZED, "http_401", 401)


class FakeTokens:
    """Hands out one token after the other, or raises."""

    def __init__(self, *tokens: str | Exception) -> None:
        self._tokens = list(tokens)
        self.refused: list[int | None] = []

    async def token(self, person: Person, *, refused: int | None = None) -> AccessToken:
        assert person == Person(CLAIM.user_id, "alice", OPENED.key)
        self.refused.append(refused)
        token = self._tokens.pop(0)
        if isinstance(token, Exception):
            raise token
        return AccessToken(token, 1)

    async def with_token(
        self, person: Person, ask: Callable[[AccessToken], Awaitable[Response]]
    ) -> Response:
        return await TokenAccess.with_token(cast("TokenAccess", self), person, ask)


class Destination:
    """Gives one response after the other, or raises. Notes the tokens and the times."""

    def __init__(self, *responses: Response | Exception) -> None:
        self._responses = list(responses)
        self.tokens: list[str] = []
        self.asked_at: list[float] = []

    async def write(self, *, authorization: str, **_: Any) -> Response:
        self.tokens.append(authorization.removeprefix("Bearer "))
        self.asked_at.append(time.monotonic())
        response = self._responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    look_up = search = write


class Limiter:
    """Notes what is reported."""

    def __init__(self) -> None:
        self.reported: list[tuple[UUID, Response, float]] = []

    def answered(self, response: Response, asked_at: float, *, upload_id: UUID, **_: Any) -> None:
        self.reported.append((upload_id, response, asked_at))


def calls(tokens: FakeTokens, destination: Destination, limiter: Limiter | None = None) -> Calls:
    channel = Channel(oneup(), cast("FhirClient", destination), cast("TokenAccess", tokens))
    return Calls(
        cast("Channels", {"oneup": channel}),
        {"oneup": cast("RateLimiter", limiter or Limiter())},
        cast("Heartbeats", None),
    )


async def _write(made: Calls) -> Response:
    return await made.write(OPENED, Create())


async def _look_up(made: Calls) -> Response:
    return await made.look_up(OPENED, "id-1")


async def _search(made: Calls) -> Response:
    return await made.search(OPENED, "system|value", {})


@pytest.mark.parametrize("call", [_write, _look_up, _search])
async def test_only_the_last_response_is_reported_with_the_time_of_its_request(
    call: Callable[[Calls], Awaitable[Response]],
) -> None:
    destination, limiter = Destination(REFUSED_TOKEN, STORED), Limiter()
    before = time.monotonic()
    assert await call(calls(FakeTokens("old", "new"), destination, limiter)) == STORED
    assert destination.tokens == ["old", "new"]
    ((upload_id, response, asked_at),) = limiter.reported
    assert (upload_id, response) == (CLAIM.upload_id, STORED)
    assert before <= destination.asked_at[0] <= asked_at <= destination.asked_at[1]


async def test_an_error_during_a_write_leaves_its_outcome_unknown() -> None:
    with pytest.raises(WriteFailed) as raised:
        await calls(FakeTokens("token"), Destination(ValueError("health data"))).write(
            OPENED, Create()
        )
    assert raised.value.error == str(raised.value) == "ValueError"


async def test_an_error_after_the_response_leaves_its_outcome_unknown() -> None:
    class Broken(Limiter):
        def answered(self, response: Response, asked_at: float, **_: Any) -> None:
            raise ValueError(response, asked_at)

    with pytest.raises(WriteFailed):
        await calls(FakeTokens("token"), Destination(STORED), Broken()).write(OPENED, Create())


@pytest.mark.parametrize("error", [TokenUnavailable("no_answer"), ValueError()])
@pytest.mark.parametrize("before", [[], [REFUSED_TOKEN]])
async def test_while_a_token_is_fetched_no_write_is_under_way(
    error: Exception, before: list[Response]
) -> None:
    tokens = FakeTokens(*["token"] * len(before), error)
    limiter = Limiter()
    with pytest.raises(type(error)):
        await calls(tokens, Destination(*before), limiter).write(OPENED, Create())
    assert not limiter.reported


@pytest.mark.parametrize("call", [_look_up, _search])
async def test_an_error_during_a_look_up_is_raised_as_it_is(
    call: Callable[[Calls], Awaitable[Response]],
) -> None:
    with pytest.raises(ValueError, match="own"):
        await call(calls(FakeTokens("token"), Destination(ValueError("own"))))


async def test_after_a_stop_nothing_is_written_and_look_ups_go_on() -> None:
    destination = Destination(STORED)
    made = calls(FakeTokens("token", "token"), destination)
    made.stop()
    with pytest.raises(Stopping):
        await made.write(OPENED, Create())
    assert not destination.tokens
    assert await made.look_up(OPENED, "id-1") == STORED


async def test_a_stop_between_a_401_and_the_fresh_token_ends_before_the_second_write() -> None:
    class StopsMeanwhile(FakeTokens):
        async def token(self, person: Person, *, refused: int | None = None) -> AccessToken:
            if refused is not None:
                made.stop()
            return await super().token(person, refused=refused)

    destination = Destination(REFUSED_TOKEN)
    made = calls(StopsMeanwhile("old", "new"), destination)
    with pytest.raises(Stopping):
        await made.write(OPENED, Create())
    assert destination.tokens == ["old"]
