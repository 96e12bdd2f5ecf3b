"""How long requests take is measured by route."""

from collections import Counter

import httpx
from prometheus_client import REGISTRY

from tests.api.calls import submit


def measured() -> Counter[tuple[str, str, str]]:
    """How many requests were measured, by route, method and class of status."""
    return Counter({
        (each.labels["route"], each.labels["method"], each.labels["status"]): int(each.value)
        for family in REGISTRY.collect()
        for each in family.samples
        if each.name == "uplift_http_duration_seconds_count"
    })  # fmt: skip


async def test_each_request_is_measured_by_its_route_and_never_by_its_address(
    client: httpx.AsyncClient, alice: str
) -> None:
    before = measured()
    upload = await submit(client)
    await client.get(f"/v1/uploads/{upload['id']}")
    await client.get("/v1/uploads/canary")
    await client.get("/v1/users/canary%2F1/summary")
    await client.head("/healthz")
    await client.get("/canary")
    await client.request("CANARY", "/v1/uploads")
    await client.delete("/v1/uploads")
    assert measured() - before == {
        ("/v1/uploads", "POST", "2xx"): 1,
        ("/v1/uploads/{upload_id}", "GET", "2xx"): 1,
        ("/v1/uploads/{upload_id}", "GET", "4xx"): 1,
        ("/v1/users/{user}/summary", "GET", "4xx"): 1,
        ("/healthz", "GET", "2xx"): 1,
        ("none", "GET", "4xx"): 1,
        ("/v1/uploads", "other", "4xx"): 1,
        ("/v1/uploads", "DELETE", "4xx"): 1,
    }


async def test_the_time_of_a_long_poll_is_in_it(client: httpx.AsyncClient, alice: str) -> None:
    def seconds() -> float:
        labels = {"route": "/v1/uploads/{upload_id}", "method": "GET", "status": "2xx"}
        return REGISTRY.get_sample_value("uplift_http_duration_seconds_sum", labels) or 0.0

    upload = await submit(client)
    before = seconds()
    await client.get(f"/v1/uploads/{upload['id']}?wait=0.3")
    assert seconds() - before >= 0.3
