"""Users over HTTP when the quota of user-management calls is spent, and who obtained a grant."""

import httpx
import pytest

from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Two calls an hour."""
    return settings.model_copy(update={"oneup_quota_calls": 2, "oneup_quota_reserve": 1})


async def test_a_new_user_over_the_quota_is_a_503_with_retry_after(
    client: httpx.AsyncClient, upstream: SandboxServer
) -> None:
    for name in ("alice", "bob"):
        assert (await client.post("/v1/users", json={"appUserId": name})).status_code == 201
    before = len(upstream.requests())

    response = await client.post("/v1/users", json={"appUserId": "carol"})

    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert 3500 < int(response.headers["Retry-After"]) <= 3601
    assert "limit on user-management calls" in response.json()["detail"]
    assert len(upstream.requests()) == before
    # An existing user needs no call.
    assert (await client.post("/v1/users", json={"appUserId": "alice"})).status_code == 200


@pytest.mark.parametrize("named", [7, None])
async def test_a_limit_of_1uphealth_is_passed_on(
    client: httpx.AsyncClient, upstream: SandboxServer, named: int | None
) -> None:
    upstream.faults(
        {"kind": "too_many_requests", "retry_after": named, "match": {"api": "user-management"}}
    )

    responses = [await client.post("/v1/users", json={"appUserId": "alice"}) for _ in range(3)]

    assert {response.status_code for response in responses} == {503}
    expected = named or 180  # a part of the hour, if 1upHealth names no time
    assert all(0 < int(response.headers["Retry-After"]) <= expected for response in responses)
    # It is not asked again before.
    assert len(upstream.requests()) == 1


async def test_a_status_says_who_obtained_the_grant(
    client: httpx.AsyncClient, relay: Relay, alice: str, upstream: SandboxServer
) -> None:
    assert (await client.get("/v1/users/alice")).json()["grantOrigin"] is None

    made = (await client.post("/v1/users", json={"appUserId": "alice"})).json()
    assert (made["grant"], made["grantOrigin"]) == ("active", "user_management")

    tokens = {"accessToken": "access", "refreshToken": "refresh", "expiresIn": 60}
    brought = (await client.put("/v1/users/alice/grant", json=tokens)).json()
    assert (brought["grant"], brought["grantOrigin"]) == ("active", "backend")
    assert (await client.get("/v1/users/alice")).json() == brought
