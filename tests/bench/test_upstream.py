"""The benchmarks' stand-in for 1upHealth, and the resources that they post to it."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from bench.resources import BYTES, bodies, of_all_types
from bench.upstream import Connection, State
from tests.uplift.destinations.known import oneup
from uplift.destinations.receipts import Receipt
from uplift.destinations.requests import Create
from uplift.destinations.responses import ResponseKind, classify_look_up, classify_write
from uplift.fhir.validate import validate


@pytest.fixture
async def url() -> AsyncIterator[str]:
    state = State()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_a_create_gets_the_response_of_1uphealth(url: str) -> None:
    ((resource_type, body),) = bodies("a", 1)

    async with httpx.AsyncClient() as client:
        response = await client.post(f"{url}/r4/{resource_type}", content=body)

    verdict = classify_write(
        response.status_code,
        response.headers,
        response.content,
        resource_type,
        destination=oneup(),
        write=Create(),
        sent=body,
    )
    assert verdict.kind is ResponseKind.STORED
    assert verdict.receipt == Receipt("up-0", "1")
    sent, stored = json.loads(body), response.json()
    assert stored == {**sent, "id": "up-0", "meta": {"versionId": "1"}}


async def test_a_look_up_finds_nothing(url: str) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{url}/r4/Observation/1")
        counts = (await client.get(f"{url}/_bench")).json()

    found = classify_look_up(
        response.status_code, response.headers, response.content, "Observation"
    )
    assert found.kind is ResponseKind.ABSENT
    assert counts["other_requests"] == 1


async def test_it_responds_after_its_latency_and_counts_creates_in_flight(url: str) -> None:
    async with httpx.AsyncClient() as client:
        await client.post(f"{url}/_bench", params={"latency_ms": 50})
        await asyncio.gather(
            *(client.post(f"{url}/r4/{type_}", content=body) for type_, body in bodies("b", 5))
        )
        counts = (await client.get(f"{url}/_bench")).json()
        await client.post(f"{url}/_bench", params={"latency_ms": 0})
        reset = (await client.get(f"{url}/_bench")).json()

    assert (counts["arrived"], counts["responses"], counts["in_flight"]) == (5, 5, 0)
    assert counts["max_in_flight"] == 5
    assert counts["own_seconds"] >= 5 * 0.049
    assert counts["last_response"] - counts["first_arrival"] >= 0.049
    assert reset["arrived"] == 0


def test_resources_are_valid_distinct_and_of_2_kb() -> None:
    made = list(bodies("r1", 4))

    assert len({json.loads(body)["id"] for _, body in made}) == 4
    assert {len(body) for _, body in made} == {BYTES}
    for _, body in made:
        report = validate(body, "R4")
        assert report.valid
        assert not report.to_json()["issue"]


def test_resources_of_all_types_have_both_versions_and_are_valid() -> None:
    made = list(of_all_types("r1", 22))

    assert len({(version, type_) for version, type_, _ in made}) == 22
    assert all(validate(body, version, second_opinion=False).valid for version, _, body in made)
    assert all(0.9 * BYTES < len(body) < 1.2 * BYTES for _, _, body in made)
