import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer

Headers = dict[str, str]


@pytest.fixture
def http(sandbox: SandboxServer) -> Iterator[httpx.Client]:
    with application(sandbox) as client:
        yield client


def application(sandbox: SandboxServer) -> httpx.Client:
    config = sandbox.config
    return httpx.Client(
        base_url=sandbox.url,
        headers={"client_id": config.client_id, "client_secret": config.client_secret},
        trust_env=False,
    )


def create(http: httpx.Client, name: str = "alice") -> httpx.Response:
    return http.post("/user-management/v1/user", params={"app_user_id": name})


def token(http: httpx.Client, path: str = "/oauth2/token", **fields: str) -> httpx.Response:
    credentials = {name: http.headers[name] for name in ("client_id", "client_secret")}
    return http.post(path, data=credentials | fields)


def exchange(http: httpx.Client, code: str) -> dict[str, Any]:
    response = token(http, grant_type="authorization_code", code=code)
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def test_a_created_user_comes_with_a_code(http: httpx.Client) -> None:
    response = create(http)
    assert response.status_code == 201
    body = response.json()
    assert body["success"] is True
    assert body["app_user_id"] == "alice"
    assert body["active"] is True
    assert isinstance(body["oneup_user_id"], int)
    assert body["code"]


@pytest.mark.parametrize("status", [200, 400])
def test_an_existing_user_is_not_created_again(status: int) -> None:
    with (
        SandboxServer(SandboxConfig(existing_user_status=status)) as sandbox,
        application(sandbox) as http,
    ):
        create(http)
        response = create(http)
        assert response.status_code == status
        assert response.json() == {"success": False, "error": "this user already exists"}


def test_ids_may_come_as_form_fields(http: httpx.Client) -> None:
    made = http.post("/user-management/v1/user", data={"app_user_id": "bob é"}).json()
    assert made["app_user_id"] == "bob é"
    again = http.post(
        "/user-management/v1/user/auth-code", data={"oneup_user_id": made["oneup_user_id"]}
    )
    assert again.json()["code"] != made["code"]


def test_a_user_without_a_name_is_refused(http: httpx.Client) -> None:
    assert http.post("/user-management/v1/user").status_code == 400


def test_an_auth_code_for_nobody_is_refused(http: httpx.Client) -> None:
    response = http.post("/user-management/v1/user/auth-code", params={"app_user_id": "nobody"})
    assert response.status_code == 400
    assert response.json() == {"success": False, "error": "this user does not exist"}


def test_users_are_listed_and_updated(http: httpx.Client) -> None:
    create(http, "alice")
    create(http, "bob")
    listed = http.get("/user-management/v1/user").json()["entry"]
    assert [one["app_user_id"] for one in listed] == ["alice", "bob"]
    one = http.get("/user-management/v1/user", params={"app_user_id": "bob"}).json()["entry"]
    assert [each["app_user_id"] for each in one] == ["bob"]
    params = {"app_user_id": "bob", "active": "false"}
    assert http.put("/user-management/v1/user", params=params).json()["active"] is False
    refused = http.post("/user-management/v1/user/auth-code", params={"app_user_id": "bob"})
    assert refused.json()["success"] is False
    unknown = http.put("/user-management/v1/user", params={"app_user_id": "nobody"})
    assert unknown.status_code == 400


@pytest.mark.parametrize("part", ["params", "data", "headers"])
def test_user_management_takes_the_credentials_from_headers_query_and_form(
    sandbox: SandboxServer, part: str
) -> None:
    config = sandbox.config
    own = {"client_id": config.client_id, "client_secret": config.client_secret}
    sent: dict[str, Any] = {"params": {"app_user_id": part}}
    sent[part] = {**sent.get(part, {}), **own}
    response = httpx.post(sandbox.users_url, **sent, trust_env=False)
    assert response.status_code == 201
    assert config.client_secret not in str(sandbox.requests())


@pytest.mark.parametrize("part", ["params", "data", "headers"])
def test_user_management_refuses_wrong_credentials_wherever_they_are(
    sandbox: SandboxServer, part: str
) -> None:
    own = {"client_id": sandbox.config.client_id, "client_secret": "wrong", "app_user_id": "a"}
    sent: dict[str, Any] = {part: own}
    response = httpx.post(sandbox.users_url, **sent, trust_env=False)
    assert response.status_code == 401
    assert response.json() == {"message": "Unauthorized"}


def test_other_methods_of_user_management_are_not_allowed(http: httpx.Client) -> None:
    assert http.delete("/user-management/v1/user").status_code == 405
    assert http.get("/user-management/v1/user/auth-code").status_code == 405


def test_the_quota_of_calls_is_spent_and_returns() -> None:
    config = SandboxConfig(quota_calls=3, quota_seconds=1)
    with SandboxServer(config) as sandbox, application(sandbox) as http:
        statuses = [create(http, f"user{number}").status_code for number in range(5)]
        assert statuses == [201, 201, 201, 429, 429]
        time.sleep(1.05)
        assert create(http, "late").status_code == 201


@pytest.mark.parametrize("path", ["/oauth2/token", "/fhir/oauth2/token"])
def test_a_code_gives_tokens_once(http: httpx.Client, path: str) -> None:
    code = create(http).json()["code"]
    first = token(http, path, grant_type="authorization_code", code=code)
    assert first.status_code == 200
    body = first.json()
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 7200
    assert body["scope"] == "user/*.*"
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    assert http.get("/r4/Observation", headers=headers).status_code == 200
    again = token(http, path, grant_type="authorization_code", code=code)
    assert again.status_code == 400
    assert again.json()["error"] == "invalid_grant"


def test_a_code_may_take_a_moment_to_become_valid() -> None:
    with (
        SandboxServer(SandboxConfig(code_delay_seconds=1)) as sandbox,
        application(sandbox) as http,
    ):
        code = create(http).json()["code"]
        early = token(http, grant_type="authorization_code", code=code)
        assert early.json()["error"] == "invalid_grant"
        time.sleep(1.05)
        exchange(http, code)


def test_a_code_ends_after_its_time() -> None:
    with SandboxServer(SandboxConfig(code_seconds=0.1)) as sandbox, application(sandbox) as http:
        code = create(http).json()["code"]
        time.sleep(0.15)
        assert token(http, grant_type="authorization_code", code=code).status_code == 400


def test_a_refresh_rotates_the_refresh_token(http: httpx.Client) -> None:
    first = exchange(http, create(http).json()["code"])
    second = token(http, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert second.status_code == 200
    assert second.json()["refresh_token"] != first["refresh_token"]
    dead = token(http, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert dead.status_code == 400
    assert dead.json()["error"] == "invalid_grant"


def test_an_access_token_ends_after_expires_in() -> None:
    with SandboxServer(SandboxConfig(token_seconds=2)) as sandbox, application(sandbox) as http:
        grant = sandbox.grant("alice")
        assert grant["expires_in"] == 2
        headers = {"Authorization": f"Bearer {grant['access_token']}"}
        assert http.get("/r4/Observation", headers=headers).status_code == 200
        time.sleep(2.05)
        assert http.get("/r4/Observation", headers=headers).status_code == 401


def test_the_token_endpoint_refuses_a_wrong_client(http: httpx.Client) -> None:
    http.headers["client_secret"] = "wrong"
    response = token(http, grant_type="authorization_code", code="any")
    assert response.status_code == 401
    assert response.json()["error"] == "invalid_client"


def test_the_token_endpoint_refuses_other_grants_and_methods(http: httpx.Client) -> None:
    assert token(http, grant_type="password").json()["error"] == "unsupported_grant_type"
    assert http.get("/oauth2/token").status_code == 405
