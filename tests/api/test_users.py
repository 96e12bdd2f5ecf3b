"""/v1/users: how users, grants and device tokens are made."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.api.calls import assert_problem, bearer, move, submit
from tests.factories import resource
from uplift.ledger import grants
from uplift.ledger.database import Database
from uplift.ledger.users import find_user
from uplift.lifecycle import State
from uplift.sandbox.testing import SandboxServer
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.users.erase import Upstream
from uplift.wiring import Relay

_GRANT = {"accessToken": "access-1", "refreshToken": "refresh-1", "expiresIn": 7200}


async def test_a_user_is_made_at_1uphealth_with_a_grant(
    client: httpx.AsyncClient, upstream: SandboxServer
) -> None:
    response = await client.post("/v1/users", json={"appUserId": "carol"})
    assert response.status_code == 201
    made = response.json()
    assert made == {
        "appUserId": "carol",
        "oneupUserId": made["oneupUserId"],
        "grant": "active",
        "grantOrigin": "user_management",
        "destination": "oneup",
        "paused": False,
        "createdAt": made["createdAt"],
        "erasingSince": None,
        "erasing": None,
        "patients": None,
        "syncToken": made["syncToken"],
    }
    assert made["oneupUserId"]
    assert (await client.get("/v1/users/carol")).json() == made


async def test_making_a_user_again_is_a_200_and_changes_nothing(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/users", json={"appUserId": "carol"})
    again = await client.post("/v1/users", json={"appUserId": "carol"})
    assert (again.status_code, again.json()) == (200, first.json())


async def test_a_move_goes_to_a_destination_of_the_deployment_only(
    client: httpx.AsyncClient, alice: str
) -> None:
    before = (await client.get("/v1/users/alice")).json()
    path = "/v1/users/alice/destination"
    same = await client.put(path, json={"destination": "oneup"})
    assert (same.status_code, same.json()) == (200, before)
    assert_problem(await client.put(path, json={"destination": "hapi"}), 404)
    assert_problem(await client.put(path, json={"to": "oneup"}), 400)
    nobody = await client.put("/v1/users/nobody/destination", json={"destination": "oneup"})
    assert_problem(nobody, 404)


async def test_a_patient_is_named_only_where_records_refer_to_one(
    client: httpx.AsyncClient, alice: str
) -> None:
    path = "/v1/users/alice/patient"
    refused = await client.put(path, json={"id": "1234"})
    assert_problem(refused, 409)
    assert refused.json()["code"] == "patient_cannot_be_named"
    assert_problem(await client.put(path, json={"id": "1234", "destination": "nowhere"}), 404)
    for wrong in ({"id": "Patient/1"}, {"id": ".."}, {"id": ""}, {"id": "1", "to": "oneup"}, {}):
        assert_problem(await client.put(path, json=wrong), 400)
    assert_problem(await client.put("/v1/users/nobody/patient", json={"id": "1"}), 404)
    assert (await client.get("/v1/users/alice")).json()["patients"] is None


_CHANGES = [
    ("POST", "/v1/uploads", {"user": "alice", "fhirVersion": "R4", "resource": resource()}),
    ("PUT", "/v1/users/{user}/destination", {"destination": "oneup"}),
    ("PUT", "/v1/users/{user}/patient", {"id": "1234"}),
    ("POST", "/v1/users/{user}/resend", None),
    ("POST", "/v1/users/{user}/device-tokens", {"expiresIn": 60}),
]


async def test_who_is_erased_upstream_gets_nothing_new_and_the_description_says_so(
    client: httpx.AsyncClient, alice: str, relay: Relay
) -> None:
    await relay.eraser.erase(alice, wait=0, upstream=Upstream.DELETE)
    paths = (await client.get("/openapi.json")).json()["paths"]
    for method, path, body in _CHANGES:
        response = await client.request(method, path.format(user=alice), json=body)
        assert_problem(response, 409)
        assert response.json()["code"] == "being_erased"
        assert "409" in paths[path][method.lower()]["responses"]


async def test_a_resend_gives_the_user_another_sync_token(
    client: httpx.AsyncClient, alice: str
) -> None:
    before = (await client.get("/v1/users/alice")).json()
    response = await client.post("/v1/users/alice/resend")
    assert response.status_code == 200
    assert response.json()["syncToken"] != before["syncToken"]
    assert response.json() == {**before, "syncToken": response.json()["syncToken"]}
    assert_problem(await client.post("/v1/users/nobody/resend"), 404)


async def test_a_user_whom_1uphealth_knows_already_is_adopted(
    client: httpx.AsyncClient, upstream: SandboxServer
) -> None:
    upstream.grant("carol")
    response = await client.post("/v1/users", json={"appUserId": "carol"})
    assert (response.status_code, response.json()["grant"]) == (201, "active")


async def test_when_1uphealth_gives_no_tokens_the_answer_is_503_and_the_next_try_continues(
    client: httpx.AsyncClient, upstream: SandboxServer
) -> None:
    upstream.faults(
        {"kind": "status", "status": 500, "match": {"api": "user-management"}, "count": 1}
    )
    response = await client.post("/v1/users", json={"appUserId": "carol"})
    assert_problem(response, 503)
    assert int(response.headers["retry-after"]) >= 1
    assert (await client.get("/v1/users/carol")).json()["grant"] == "none"
    assert (await client.post("/v1/users", json={"appUserId": "carol"})).status_code == 201


async def test_an_unknown_user_is_a_404(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/v1/users/nobody"), 404)
    response = await client.post("/v1/users/nobody/device-tokens", json={"expiresIn": 60})
    assert_problem(response, 404)


async def test_a_stored_grant_creates_the_user_and_is_sealed(
    client: httpx.AsyncClient, database: Database, key_ring: KeyRing
) -> None:
    response = await client.put("/v1/users/carol/grant", json=_GRANT)
    assert response.status_code == 200
    assert (response.json()["appUserId"], response.json()["grant"]) == ("carol", "active")
    async with database.transaction() as connection:
        user = await find_user(connection, "carol")
        assert user is not None
        grant = await grants.get_grant(connection, user.id, user.key(key_ring))
        shown = await connection.scalar(text("SELECT grants::text FROM grants"))
    assert grant is not None
    assert (grant.tokens.access_token, grant.tokens.refresh_token) == ("access-1", "refresh-1")
    assert 7100 < grant.tokens.expires_in <= 7200
    assert "access-1" not in str(shown)


async def test_a_stored_grant_replaces_the_earlier_one(
    client: httpx.AsyncClient, database: Database, key_ring: KeyRing
) -> None:
    await client.put("/v1/users/carol/grant", json=_GRANT)
    await client.put("/v1/users/carol/grant", json={"accessToken": "access-2", "expiresIn": 60})
    async with database.transaction() as connection:
        user = await find_user(connection, "carol")
        assert user is not None
        grant = await grants.get_grant(connection, user.id, user.key(key_ring))
    assert grant is not None
    assert (grant.tokens.access_token, grant.tokens.refresh_token) == ("access-2", None)


async def test_a_stored_grant_releases_parked_uploads(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    status = await submit(client)
    await move(database, status["id"], State.PARKED, clock=60.0)
    await client.put("/v1/users/alice/grant", json=_GRANT)
    released = (await client.get(status["statusUrl"])).json()
    assert (released["status"], released["reason"]) == ("queued", "released")


async def test_a_device_token_is_shown_once_and_says_when_it_expires(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, alice: str, database: Database
) -> None:
    before = datetime.now(UTC)
    response = await client.post("/v1/users/alice/device-tokens", json={"expiresIn": 3600})
    assert response.status_code == 201
    assert set(response.json()) == {"id", "token", "expiresAt"}
    token = response.json()["token"]
    left = datetime.fromisoformat(response.json()["expiresAt"]) - before
    assert timedelta(seconds=3590) < left < timedelta(seconds=3610)
    listed = await anybody.get("/v1/uploads", headers=bearer(token))
    assert listed.status_code == 200
    async with database.transaction() as connection:
        shown = await connection.scalar(
            text("SELECT credentials::text FROM credentials WHERE kind = 'device_token'")
        )
    assert token not in str(shown)


async def test_a_device_token_lives_no_longer_than_the_setting(
    client: httpx.AsyncClient, alice: str, settings: Settings
) -> None:
    limit = settings.max_device_token_seconds
    for seconds, status in ((limit, 201), (limit + 1, 400), (10**400, 400)):
        response = await client.post("/v1/users/alice/device-tokens", json={"expiresIn": seconds})
        assert response.status_code == status
        if status != 201:
            assert_problem(response, status)


_NAMES = [
    "Patient/1",
    "https://id.example/users/7?x=1#y",
    "a%2Fb",
    "%2f",
    "/",
    "a b+c&d=e;f",
    "Zo\u00eb \u2603 \U0001f600",
    "'; DROP TABLE users; --",
    "{user}",
    "x" * 256,
    "grant",
    "a/grant",
    "a/device-tokens",
]


@pytest.mark.parametrize("name", ["\u202egnp.exe", "a\u2028b", "\u009b31mX", "a\tb", "\u2066a"])
async def test_a_name_that_steers_a_terminal_or_a_reader_is_refused(
    client: httpx.AsyncClient, name: str
) -> None:
    assert_problem(await client.post("/v1/users", json={"appUserId": name}), 400)
    token = {"expiresIn": 60, "name": name}
    await client.put("/v1/users/alice/grant", json=_GRANT)
    assert_problem(await client.post("/v1/users/alice/device-tokens", json=token), 400)


async def test_a_name_can_contain_what_a_backend_uses(client: httpx.AsyncClient) -> None:
    for name in _NAMES:
        path = "/v1/users/" + _quoted(name)
        assert (await client.put(f"{path}/grant", json=_GRANT)).json()["appUserId"] == name
        assert (await client.get(path)).json()["appUserId"] == name
        token = await client.post(f"{path}/device-tokens", json={"expiresIn": 60})
        assert token.status_code == 201
        response = await client.post(
            "/v1/uploads", json={"user": name, "fhirVersion": "R4", "resource": resource()}
        )
        assert response.json()["user"] == name
        listed = await client.get("/v1/uploads", params={"user": name})
        assert [upload["user"] for upload in listed.json()["uploads"]] == [name]
        again = await client.post("/v1/users", json={"appUserId": name})
        assert (again.status_code, again.json()["appUserId"]) == (200, name)


async def test_names_that_differ_in_how_a_slash_is_written_are_different_users(
    client: httpx.AsyncClient,
) -> None:
    await client.put("/v1/users/a%2Fb/grant", json=_GRANT)
    assert (await client.get("/v1/users/a%2fb")).json()["appUserId"] == "a/b"
    assert_problem(await client.get("/v1/users/a%252Fb"), 404)
    assert_problem(await client.get("/v1/users/a%ED%B0%AFb"), 404)


def _quoted(name: str) -> str:
    return "".join(f"%{byte:02X}" for byte in name.encode())


_BAD_NAMES = ["", "\x00", "a\x00", "a\nb", "\x1f", "\x7f", "x" * 257]


async def test_an_empty_or_long_name_or_one_with_control_characters_is_a_400(
    client: httpx.AsyncClient,
) -> None:
    for name in _BAD_NAMES:
        problem = assert_problem(await client.post("/v1/users", json={"appUserId": name}), 400)
        assert [error["where"] for error in problem["errors"]] == ["body.appUserId"]
    for name in _BAD_NAMES[1:]:
        path = f"/v1/users/{_quoted(name)}"
        for response in (
            await client.get(path),
            await client.put(f"{path}/grant", json=_GRANT),
            await client.post(f"{path}/device-tokens", json={"expiresIn": 60}),
        ):
            problem = assert_problem(response, 400)
            assert [error["where"] for error in problem["errors"]] == ["path.user"]


_BODIES: list[tuple[str, str, list[Any]]] = [
    (
        "POST",
        "/v1/users",
        [{}, {"appUserId": None}, {"appUserId": 7}, {"appUserId": ["a"]}, [], None, "alice", 7],
    ),
    (
        "PUT",
        "/v1/users/carol/grant",
        [
            {},
            {"accessToken": "a"},
            {"expiresIn": 7},
            {**_GRANT, "expiresIn": 0},
            {**_GRANT, "expiresIn": -1},
            {**_GRANT, "expiresIn": float("nan")},
            {**_GRANT, "expiresIn": float("inf")},
            {**_GRANT, "expiresIn": 1e300},
            {**_GRANT, "accessToken": ""},
            {**_GRANT, "refreshToken": ""},
            {**_GRANT, "accessToken": "x" * 8193},
            # What no Authorization header could carry later.
            {**_GRANT, "accessToken": "a\r\nX-Injected: 1"},
            {**_GRANT, "accessToken": "caf\u00e9"},
            {**_GRANT, "refreshToken": "a b"},
        ],
    ),
    (
        "POST",
        "/v1/users/alice/device-tokens",
        [
            {},
            {"expiresIn": 0},
            {"expiresIn": -1},
            {"expiresIn": 1.5},
            {"expiresIn": "soon"},
            {"expiresIn": float("nan")},
            [60],
        ],
    ),
]


async def test_a_wrong_body_is_a_400_that_says_where(client: httpx.AsyncClient, alice: str) -> None:
    for method, path, bodies in _BODIES:
        for body in bodies:
            response = await client.request(
                method,
                path,
                content=json.dumps(body),
                headers={"Content-Type": "application/json"},
            )
            problem = assert_problem(response, 400)
            assert all(error["where"].startswith("body") for error in problem["errors"]), body


async def test_malformed_json_is_a_400_that_quotes_nothing(
    client: httpx.AsyncClient, alice: str
) -> None:
    for method, path, _ in _BODIES:
        for content in (
            b"",
            b"{",
            b'{"appUserId": "secret-canary',
            b"\xff\xfe",
            b'{"appUserId": "\\ud800"}',
            b"[" * 60_000,
            b'{"expiresIn": ' + b"9" * 60_000 + b"}",
        ):
            response = await client.request(
                method, path, content=content, headers={"Content-Type": "application/json"}
            )
            assert_problem(response, 400)
            assert "canary" not in response.text


async def test_user_routes_accept_only_json_of_a_limited_size(client: httpx.AsyncClient) -> None:
    large = b'{"appUserId": "' + b"x" * 70_000 + b'"}'
    for method, path, _ in _BODIES:
        headers = {"Content-Type": "text/plain"}
        assert_problem(await client.request(method, path, content=b"{}", headers=headers), 415)
        headers = {"Content-Type": "application/json"}
        assert_problem(await client.request(method, path, content=large, headers=headers), 413)


async def test_the_credential_is_checked_before_the_body_is_read(
    anybody: httpx.AsyncClient,
) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path, _ in _BODIES:
        for content in (b"{", b"x" * 100_000):
            response = await anybody.request(method, path, content=content, headers=headers)
            assert_problem(response, 401)
