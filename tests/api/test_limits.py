"""How much a caller may bring, and how much may wait: told in time, and never dropped silently."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from tests import factories
from tests.api.door import Keys, assert_problem, bearer, device_token, submit
from tests.factories import resource
from uplift.api.app import create_app
from uplift.intake.accept_batch import GROUP_BYTES
from uplift.ledger.database import Database
from uplift.settings import Settings

_NDJSON = {"Content-Type": "application/x-ndjson"}
_LEFT = re.compile(r'"records";r=(\d+);t=(\d+)')


@asynccontextmanager
async def door(settings: Settings, key: str, **changed: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with other limits; alice is there."""
    app = create_app(settings.model_copy(update=changed))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://uplift", headers=bearer(key)
        ) as client,
    ):
        await factories.user_without_grant(app.state.relay)
        client.app = app  # type: ignore[attr-defined]
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


async def test_each_answer_says_what_is_left_and_beyond_it_429_says_when_to_come(
    settings: Settings, database: Database, keys: Keys
) -> None:
    async with door(
        settings, keys.backend, rate_limit_key_records=3, rate_limit_seconds=600
    ) as client:
        for number in range(3):
            response = await post(client, number)
            assert response.status_code == 202
            assert response.headers["ratelimit-policy"] == '"records";q=3;w=600'
            assert left(response)[0] == 2 - number
        for _ in range(2):
            refused = await post(client, 4)
            assert "Retry-After" in assert_problem(refused, 429)["detail"]
            assert refused.headers["retry-after"] == "200"
            assert left(refused) == (0, 200)
            assert refused.headers["ratelimit-policy"] == '"records";q=3;w=600'
        # What was brought may be asked for all the same, and others are not held back.
        assert len((await client.get("/v1/uploads")).json()["uploads"]) == 3
        token = await device_token(database, "alice")
        assert (await post(client, 5, headers=bearer(token))).status_code == 202


async def test_keys_and_devices_have_limits_of_their_own(
    settings: Settings, database: Database, keys: Keys
) -> None:
    async with door(
        settings, keys.backend, rate_limit_key_records=9, rate_limit_device_records=4
    ) as client:
        token = await device_token(database, "alice")
        assert left(await post(client, 1))[0] == 8
        assert left(await post(client, 2, headers=bearer(token)))[0] == 3


async def test_after_a_while_the_next_is_accepted(
    settings: Settings, database: Database, keys: Keys
) -> None:
    async with door(
        settings, keys.backend, rate_limit_key_records=1, rate_limit_seconds=0.01
    ) as client:
        for number in range(3):
            while (response := await post(client, number)).status_code != 202:
                assert_problem(response, 429)


async def test_a_batch_goes_into_debt_but_is_not_broken_off(
    settings: Settings, database: Database, keys: Keys
) -> None:
    url = "/v1/batches?user=alice"
    async with door(
        settings, keys.backend, rate_limit_key_records=10, rate_limit_seconds=600
    ) as client:
        response = await client.post(url, content=lines(14), headers=_NDJSON)
        assert response.status_code == 202
        assert response.json()["accepted"] == 14
        assert left(response) == (0, 360)  # six to work off
        for refused in (
            await client.post(url, content=lines(1), headers=_NDJSON),
            await post(client, 1),
        ):
            assert_problem(refused, 429)
            assert 350 <= int(refused.headers["retry-after"]) <= 360
        assert (await client.get("/v1/batches")).json()["batches"][0]["accepted"] == 14


async def test_a_full_backlog_accepts_nothing_and_says_when_to_come_again(
    settings: Settings, database: Database, keys: Keys
) -> None:
    async with door(settings, keys.backend, max_backlog=2) as client:
        pressure = client.app.state.relay.acceptor._pressure  # type: ignore[attr-defined]
        for number in range(2):
            await submit(client, id=f"first{number}")
        pressure._next = 0.0
        await post(client, 0)
        await pressure.counted()
        requests = [
            post(client, 1),
            client.post("/v1/batches?user=alice", content=lines(1), headers=_NDJSON),
        ]
        for request in requests:
            response = await request
            assert "UPLIFT_MAX_BACKLOG" in assert_problem(response, 503)["detail"]
            assert int(response.headers["retry-after"]) >= 1
        assert len((await client.get("/v1/uploads")).json()["uploads"]) == 3
        assert (await client.get("/v1/batches")).json()["batches"] == []


async def test_a_full_backlog_has_the_first_answer_for_what_was_accepted_before(
    settings: Settings, database: Database, keys: Keys
) -> None:
    async with door(settings, keys.backend, max_backlog=1) as client:
        pressure = client.app.state.relay.acceptor._pressure  # type: ignore[attr-defined]
        first = await post(client, 0, headers={"Idempotency-Key": "one"})
        pressure._next = 0.0
        await post(client, 0, headers={"Idempotency-Key": "one"})
        await pressure.counted()
        again = await post(client, 0, headers={"Idempotency-Key": "one"})
        assert (again.status_code, again.json()) == (202, first.json())
        assert_problem(await post(client, 1, headers={"Idempotency-Key": "one"}), 422)
        assert_problem(await post(client, 0, headers={"Idempotency-Key": "two"}), 503)
        assert_problem(await post(client, 0), 503)


async def test_a_batch_ends_where_the_backlog_is_full_and_its_lines_tell_the_truth(
    settings: Settings, database: Database, keys: Keys
) -> None:
    batch = str(factories.new_id())
    async with door(settings, keys.backend, max_backlog=100) as client:
        pressure = client.app.state.relay.acceptor._pressure  # type: ignore[attr-defined]

        async def body() -> AsyncIterator[bytes]:
            yield lines(100)
            # The next group is asked for when the one before it is committed.
            yield lines(1, 100, text=" " * GROUP_BYTES)
            pressure._next = 0.0
            await pressure.counted()
            yield lines(1, 101, text=" " * GROUP_BYTES)
            await pressure.counted()
            for number in range(102, 110):
                yield lines(1, number, text=" " * GROUP_BYTES)

        response = await client.post(
            f"/v1/batches?user=alice&batch={batch}", content=body(), headers=_NDJSON
        )
        detail = assert_problem(response, 503)["detail"]
        assert f"/v1/batches/{batch}/lines" in detail
        status = (await client.get(f"/v1/batches/{batch}")).json()
        assert (status["closed"], status["broken"]) == (True, True)
        assert 100 <= status["accepted"] < 110
        told = (await client.get(f"/v1/batches/{batch}/lines")).json()["lines"]
        kept = (await client.get(f"/v1/uploads?batch={batch}&limit=500")).json()["uploads"]
        assert [line["line"] for line in told] == list(range(1, status["accepted"] + 1))
        assert {line["id"] for line in told} == {upload["id"] for upload in kept}


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_who_is_refused_for_another_reason_is_counted_all_the_same(
    settings: Settings, database: Database, keys: Keys, status: int
) -> None:
    query, key = {
        400: ("user=alice", keys.backend),
        403: ("user=alice&fhirVersion=R4", keys.operator),
        404: ("user=nobody&fhirVersion=R4", keys.backend),
    }[status]
    async with door(settings, keys.backend, rate_limit_key_records=1) as client:
        first, second = [
            await client.post(f"/v1/uploads?{query}", json=resource(), headers=bearer(key))
            for _ in range(2)
        ]
        assert_problem(first, status)
        assert_problem(second, 403 if status == 403 else 429)
