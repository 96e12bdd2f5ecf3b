"""/healthz and /readyz of a healthy process. test_outages.py has what they say in an outage."""

import httpx


async def test_a_process_that_answers_is_alive(anybody: httpx.AsyncClient) -> None:
    response = await anybody.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_a_process_with_its_database_and_redis_is_ready(anybody: httpx.AsyncClient) -> None:
    response = await anybody.get("/readyz")
    assert (response.status_code, response.json()) == (
        200,
        {"status": "ready", "redis": True, "keys": "fit"},
    )


async def test_a_wrong_credential_does_not_make_it_unhealthy(anybody: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        response = await anybody.get(path, headers={"Authorization": "Bearer wrong"})
        assert response.status_code == 200
