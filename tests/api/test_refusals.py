"""Requests that are refused are counted, and logged without anything of a person."""

import io
from uuid import UUID

import httpx
from prometheus_client import REGISTRY

from tests.api.calls import Keys, bearer, events
from uplift.api.refusals import CREDENTIAL, Refusals


def counted(status: int, kind: str) -> float:
    labels = {"status": str(status), "kind": kind}
    return REGISTRY.get_sample_value("uplift_http_refusals_total", labels) or 0.0


async def test_a_refusal_is_logged_with_its_request_its_credential_and_its_route(
    anybody: httpx.AsyncClient, keys: Keys, log: io.StringIO
) -> None:
    before = counted(401, "users"), counted(403, "users")
    unknown = await anybody.get("/v1/users/canary/summary?user=canary")
    forbidden = await anybody.delete("/v1/users/canary%2F1", headers=bearer(keys.operator))
    assert (counted(401, "users"), counted(403, "users")) == (before[0] + 1, before[1] + 1)
    first, second = (each for each in events(log) if each["event"] == "request_refused")
    assert (first["status"], first["method"], first["route"], first["credential"]) == (
        401, "GET", "/v1/users/{user}/summary", "none",
    )  # fmt: skip
    assert first["request"] == unknown.headers["X-Request-ID"]
    assert (second["status"], second["route"]) == (403, "/v1/users/{user}")
    assert second["request"] == forbidden.headers["X-Request-ID"]
    assert UUID(second["credential"])
    assert "canary" not in log.getvalue()


async def test_a_body_that_is_too_large_or_of_another_type_is_a_refusal(
    client: httpx.AsyncClient, log: io.StringIO
) -> None:
    large = {"Content-Type": "application/json", "Content-Length": str(2**40)}
    await client.post("/v1/uploads", content=b"{}", headers=large)
    await client.post("/v1/uploads", content=b"{}", headers={"Content-Type": "text/plain"})
    assert [each["status"] for each in events(log)] == [413, 415]


async def test_other_answers_are_no_refusals(client: httpx.AsyncClient, log: io.StringIO) -> None:
    for path in ("/healthz", "/nowhere", "/v1/uploads?limit=0", "/v1/users/nobody"):
        await client.get(path)
    assert not events(log)


async def test_of_many_refusals_in_a_second_few_are_logged_and_the_others_are_told(
    log: io.StringIO,
) -> None:
    now = [7.0]
    refusals = Refusals(clock=lambda: now[0])
    scope = {"method": "GET", CREDENTIAL: UUID(int=1)}
    before = counted(401, "none")
    for _ in range(100):
        refusals.note(scope, 401)
    now[0] += 1
    refusals.note(scope, 429)
    lines = events(log)
    assert [line["unlogged"] for line in lines] == [0] * 10 + [90]
    assert lines[-1]["credential"] == str(UUID(int=1))
    assert counted(401, "none") == before + 100
