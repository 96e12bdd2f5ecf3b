"""Rate limits and back pressure: callers hear of them in time, and nothing is lost silently."""

import asyncio
import dataclasses
import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI

from tests import factories
from tests.api.calls import Keys, assert_problem, bearer, device_token
from tests.factories import resource
from uplift.api.app import create_app
from uplift.errors import BacklogFull, UserBacklogFull
from uplift.intake.accept import Acceptor
from uplift.intake.accept_batch import GROUP_BYTES, BatchAcceptor
from uplift.intake.back_pressure import BackPressure
from uplift.ledger.database import Database
from uplift.problem_types import ProblemType
from uplift.settings import Settings
from uplift.wiring import Relay

_NDJSON = {"Content-Type": "application/x-ndjson"}
_LEFT = re.compile(r'"records";r=(\d+);t=(\d+)(?:, "bytes";r=(\d+);t=(\d+))?')


@asynccontextmanager
async def serving(settings: Settings, key: str, **changed: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with other limits; alice is there."""
    app = create_app(settings.model_copy(update=changed))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://uplift", headers=bearer(key)
        ) as client,
    ):
        await factories.user_without_grant(app.state.relay)
        yield client


def lines(count: int, start: int = 0, **more: Any) -> bytes:
    return b"".join(
        orjson.dumps({"fhirVersion": "R4", "resource": resource(id=f"l{start + n}", **more)})
        + b"\n"
        for n in range(count)
    )


async def post(client: httpx.AsyncClient, number: int, **more: Any) -> httpx.Response:
    return await client.post(
        "/v1/uploads?user=alice&fhirVersion=R4", json=resource(id=f"o{number}"), **more
    )


def left(response: httpx.Response) -> tuple[int, int]:
    found = _LEFT.fullmatch(response.headers["ratelimit"])
    assert found is not None, response.headers["ratelimit"]
    return int(found[1]), int(found[2])


async def test_each_answer_says_what_is_left_and_then_429_says_when_to_come_back(
    settings: Settings, database: Database, keys: Keys
) -> None:
    async with serving(
        settings, keys.backend, rate_limit_key_records=3, rate_limit_seconds=600
    ) as client:
        for number in range(3):
            response = await post(client, number)
            assert response.status_code == 202
            assert response.headers["ratelimit-policy"] == '"records";q=3;w=600'
            assert left(response)[0] == 2 - number
        for _ in range(2):
            refused = await post(client, 4)
            detail = assert_problem(refused, 429)["detail"]
            assert detail.startswith(
                "Rate limit of records reached for this key (UPLIFT_RATE_LIMIT_KEY_RECORDS)."
                " Nothing was accepted."
            )
            assert refused.headers["retry-after"] == "200"
            assert left(refused) == (0, 200)
            assert refused.headers["ratelimit-policy"] == '"records";q=3;w=600'
        # Reading is not limited, and other callers have their own limit.
        assert len((await client.get("/v1/uploads")).json()["uploads"]) == 3
        token = await device_token(database, "alice")
        assert (await post(client, 5, headers=bearer(token))).status_code == 202


async def test_keys_and_devices_have_limits_of_their_own(
    settings: Settings, database: Database, keys: Keys
) -> None:
    async with serving(
        settings, keys.backend, rate_limit_key_records=9, rate_limit_device_records=4
    ) as client:
        token = await device_token(database, "alice")
        assert left(await post(client, 1))[0] == 8
        assert left(await post(client, 2, headers=bearer(token)))[0] == 3


def bytes_left(response: httpx.Response) -> int:
    found = _LEFT.fullmatch(response.headers["ratelimit"])
    assert found is not None, response.headers["ratelimit"]
    return int(found[3])


@pytest.mark.parametrize("packed", [False, True])
async def test_a_device_is_charged_for_the_bytes_of_its_bodies_too(
    settings: Settings, database: Database, keys: Keys, packed: bool
) -> None:
    async with serving(
        settings, keys.backend, rate_limit_device_bytes=100_000, rate_limit_seconds=6000
    ) as client:
        token = bearer(await device_token(database, "alice"))
        body = orjson.dumps(resource(id="large", valueString="x" * 60_000))
        query = "/v1/uploads?user=alice&fhirVersion=R4"
        headers = {**token, "Content-Type": "application/fhir+json"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        sent = gzip.compress(body) if packed else body
        first = await client.post(query, content=sent, headers=headers)
        assert first.status_code == 202
        policy = '"records";q=10000;w=6000, "bytes";q=100000;w=6000;qu="content-bytes"'
        assert first.headers["ratelimit-policy"] == policy
        assert abs(bytes_left(first) - (100_000 - len(body))) < 100
        # A request that has begun is not cut off: the debt is paid by the next ones.
        batch = await client.post(
            "/v1/batches?user=alice",
            content=lines(1, valueString="x" * 60_000),
            headers={**token, **_NDJSON},
        )
        assert batch.status_code == 202
        assert bytes_left(batch) == 0
        for refused in (
            await post(client, 1, headers=token),
            await client.post(
                "/v1/batches?user=alice", content=lines(1), headers={**token, **_NDJSON}
            ),
        ):
            detail = assert_problem(refused, 429)["detail"]
            assert "of bytes" in detail
            assert "UPLIFT_RATE_LIMIT_DEVICE_BYTES" in detail
            assert 1000 < int(refused.headers["retry-after"]) < 1400  # 20,600 at 16.7 a second
        # A key has no such limit, and neither has another device anything to pay.
        assert (await post(client, 2)).status_code == 202
        other = bearer(await device_token(database, "alice"))
        assert (await post(client, 3, headers=other)).status_code == 202


async def test_a_bundle_of_a_device_is_charged_for_its_bytes(
    settings: Settings, database: Database, keys: Keys
) -> None:
    async with serving(
        settings, keys.backend, rate_limit_device_bytes=50_000, rate_limit_seconds=6000
    ) as client:
        token = bearer(await device_token(database, "alice"))
        large = resource(id="large", valueString="x" * 60_000)
        response = await client.post(
            "/v1/batches?user=alice&fhirVersion=R4",
            json={
                "resourceType": "Bundle", "type": "collection", "entry": [{"resource": large}]
            },
            headers=token,
        )  # fmt: skip
        assert response.status_code == 202, response.text
        assert bytes_left(response) == 0
        assert_problem(await post(client, 1, headers=token), 429)


async def test_after_a_while_the_next_is_accepted(
    settings: Settings, database: Database, keys: Keys
) -> None:
    async with serving(
        settings, keys.backend, rate_limit_key_records=1, rate_limit_seconds=0.01
    ) as client:
        for number in range(3):
            while (response := await post(client, number)).status_code != 202:
                assert_problem(response, 429)


async def test_a_batch_can_exceed_the_limit_and_later_requests_wait_for_it(
    settings: Settings, database: Database, keys: Keys
) -> None:
    url = "/v1/batches?user=alice"
    async with serving(
        settings, keys.backend, rate_limit_key_records=10, rate_limit_seconds=600
    ) as client:
        response = await client.post(url, content=lines(14), headers=_NDJSON)
        assert response.status_code == 202
        assert response.json()["accepted"] == 14
        assert left(response) == (0, 360)  # six records, one per minute
        for refused in (
            await client.post(url, content=lines(1), headers=_NDJSON),
            await post(client, 1),
        ):
            assert_problem(refused, 429)
            assert 350 <= int(refused.headers["retry-after"]) <= 360
        assert (await client.get("/v1/batches")).json()["batches"][0]["accepted"] == 14


async def until_full(client: httpx.AsyncClient) -> None:
    """Send the same record again until the API has noticed that the backlog is full."""
    async with asyncio.timeout(20):
        while (await post(client, 0)).status_code != 503:
            pass


async def test_a_full_backlog_accepts_nothing_and_says_when_to_come_again(
    settings: Settings, client: httpx.AsyncClient, alice: str, keys: Keys
) -> None:
    for number in range(2):
        await post(client, number)
    async with serving(settings, keys.backend, max_backlog=2) as full:
        await until_full(full)
        for response in (
            await post(full, 3),
            await full.post("/v1/batches?user=alice", content=lines(1), headers=_NDJSON),
        ):
            assert "UPLIFT_MAX_BACKLOG" in assert_problem(response, 503)["detail"]
            assert int(response.headers["retry-after"]) >= 1
        assert len((await full.get("/v1/uploads")).json()["uploads"]) == 2
        assert (await full.get("/v1/batches")).json()["batches"] == []


async def test_with_a_full_backlog_an_idempotency_key_still_gets_its_first_answer(
    settings: Settings, client: httpx.AsyncClient, alice: str, keys: Keys
) -> None:
    first = await post(client, 0, headers={"Idempotency-Key": "one"})
    async with serving(settings, keys.backend, max_backlog=1) as full:
        await until_full(full)
        again = await post(full, 0, headers={"Idempotency-Key": "one"})
        assert (again.status_code, again.json()) == (202, first.json())
        assert_problem(await post(full, 1, headers={"Idempotency-Key": "one"}), 422)
        assert_problem(await post(full, 0, headers={"Idempotency-Key": "two"}), 503)


class _FullAfter(BackPressure):
    """Refuses with this error after so many checks."""

    def __init__(self, relay: Relay, checks: int, error: BacklogFull) -> None:
        super().__init__(relay.database, relay.settings)
        self._left = checks
        self._error = error

    def check(self, _: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise self._error


async def test_a_batch_ends_where_the_backlog_is_full_and_its_lines_say_what_was_accepted(
    app: FastAPI, relay: Relay, client: httpx.AsyncClient, alice: str
) -> None:
    # One check for the batch, and one for each group of lines.
    full = BacklogFull(ProblemType.BACKLOG_FULL, "Full.", retry_after=1.0)
    pressure = _FullAfter(relay, 3, full)
    app.state.relay = dataclasses.replace(
        relay,
        batch_acceptor=BatchAcceptor(
            relay.database,
            relay.key_ring,
            relay.dispatcher,
            pressure,
            relay.destinations,
            relay.settings,
        ),
    )
    batch = str(factories.new_id())
    # Each of these lines is a group.
    content = b"".join(lines(1, number, text=" " * GROUP_BYTES) for number in range(5))
    response = await client.post(
        f"/v1/batches?user=alice&batch={batch}", content=content, headers=_NDJSON
    )
    detail = assert_problem(response, 503)["detail"]
    assert f"/v1/batches/{batch}/lines" in detail
    status = (await client.get(f"/v1/batches/{batch}")).json()
    assert (status["closed"], status["broken"], status["accepted"]) == (True, True, 2)
    listed = (await client.get(f"/v1/batches/{batch}/lines")).json()["lines"]
    kept = (await client.get(f"/v1/uploads?batch={batch}&limit=500")).json()["uploads"]
    assert [line["line"] for line in listed] == [1, 2]
    assert {line["id"] for line in listed} == {upload["id"] for upload in kept}


async def test_lines_that_come_while_too_much_of_their_user_waits_are_problems_of_their_own(
    app: FastAPI, relay: Relay, client: httpx.AsyncClient, alice: str
) -> None:
    full = UserBacklogFull(ProblemType.USER_BACKLOG_FULL, "Full.", retry_after=30.0)
    pressure = _FullAfter(relay, 2, full)
    app.state.relay = dataclasses.replace(
        relay,
        acceptor=Acceptor(
            relay.database, relay.key_ring, relay.dispatcher, pressure, relay.destinations
        ),
        batch_acceptor=BatchAcceptor(
            relay.database,
            relay.key_ring,
            relay.dispatcher,
            pressure,
            relay.destinations,
            relay.settings,
        ),
    )
    content = b"".join(lines(1, number, text=" " * GROUP_BYTES) for number in range(3))
    response = await client.post("/v1/batches?user=alice", content=content, headers=_NDJSON)
    assert response.status_code == 202
    status = response.json()
    assert (status["accepted"], status["problems"]) == (1, 2)
    assert [line["problem"]["code"] for line in status["lines"][1:]] == ["user_backlog_full"] * 2

    single = await client.post(
        "/v1/uploads?user=alice&fhirVersion=R4", json=factories.resource(), headers={}
    )
    assert assert_problem(single, 429)["code"] == "user_backlog_full"
    assert single.headers["Retry-After"] == "30"


async def test_requests_that_are_refused_for_another_reason_count_too(
    settings: Settings, database: Database, keys: Keys
) -> None:
    for status, query, key, second_status in (
        (400, "user=alice", keys.backend, 429),
        (403, "user=alice&fhirVersion=R4", keys.operator, 403),
        (404, "user=nobody&fhirVersion=R4", keys.backend, 429),
    ):
        async with serving(settings, keys.backend, rate_limit_key_records=1) as client:
            first, second = [
                await client.post(f"/v1/uploads?{query}", json=resource(), headers=bearer(key))
                for _ in range(2)
            ]
            assert_problem(first, status)
            assert_problem(second, second_status)
