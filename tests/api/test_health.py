"""/healthz and /readyz when all is well; what they say in an outage is in test_outages.py."""

import httpx


async def test_a_process_that_answers_is_alive(anybody: httpx.AsyncClient) -> None:
    response = await anybody.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_with_its_ledger_and_its_bell_it_is_ready(anybody: httpx.AsyncClient) -> None:
    response = await anybody.get("/readyz")
    assert response.status_code == 200
    assert response.json().items() >= {"status": "ready", "redis": True, "keys": "fit"}.items()


async def test_a_wrong_credential_does_not_make_it_unhealthy(anybody: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        response = await anybody.get(path, headers={"Authorization": "Bearer wrong"})
        assert response.status_code == 200
