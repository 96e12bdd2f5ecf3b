"""Credentials: which are valid, which are not, and that revoking one has effect at once."""

import httpx
from sqlalchemy import text

from tests.api.calls import Keys, assert_problem, bearer, device_token
from tests.keys import KEY_RING
from uplift.ledger.credentials import BACKEND, Scope, add_api_key, revoke
from uplift.ledger.database import Database

_NOT_GOOD = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    "Bearer uplift_key_" + "A" * 43,
    "Basic dXNlcjpwYXNz",
    "bearer:x",
    "Bearer \x00",
    "Bearer caf\xe9",
    "Bearer " + "x" * 30_000,
    "Token x",
]


async def test_without_a_valid_credential_the_answer_is_401(anybody: httpx.AsyncClient) -> None:
    for header in _NOT_GOOD:
        headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
        response = await anybody.get("/v1/uploads", headers=headers)
        problem = assert_problem(response, 401)
        assert response.headers["www-authenticate"] in ("Bearer", 'Bearer error="invalid_token"')
        assert "x" * 100 not in problem["detail"]


async def test_a_key_must_match_exactly(anybody: httpx.AsyncClient, keys: Keys) -> None:
    assert (await anybody.get("/v1/uploads", headers=bearer(keys.backend))).status_code == 200
    scheme = {"Authorization": f"bEaReR {keys.backend}"}  # RFC 9110, 11.1: case-insensitive
    assert (await anybody.get("/v1/uploads", headers=scheme)).status_code == 200
    for nearly in (keys.backend[:-1], keys.backend + "A", keys.backend.swapcase()):
        assert_problem(await anybody.get("/v1/uploads", headers=bearer(nearly)), 401)


async def test_a_key_in_the_query_is_not_a_credential(
    anybody: httpx.AsyncClient, keys: Keys
) -> None:
    assert_problem(await anybody.get("/v1/uploads", params={"access_token": keys.backend}), 401)


async def test_revoking_a_key_takes_effect_with_the_next_request(
    anybody: httpx.AsyncClient, database: Database
) -> None:
    async with database.transaction() as connection:
        key_id, secret = await add_api_key(connection, KEY_RING, "short", BACKEND)
    assert (await anybody.get("/v1/uploads", headers=bearer(secret))).status_code == 200
    async with database.transaction() as connection:
        assert await revoke(connection, key_id)
    assert_problem(await anybody.get("/v1/uploads", headers=bearer(secret)), 401)


async def test_an_expired_device_token_is_not_a_credential(
    anybody: httpx.AsyncClient, alice: str, database: Database
) -> None:
    good, over = await device_token(database, alice), await device_token(database, alice, -1)
    assert (await anybody.get("/v1/uploads", headers=bearer(good))).status_code == 200
    assert_problem(await anybody.get("/v1/uploads", headers=bearer(over)), 401)


async def test_erasing_a_user_ends_their_devices(
    anybody: httpx.AsyncClient, alice: str, database: Database
) -> None:
    headers = bearer(await device_token(database, alice))
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE users SET erased_at = now(), app_user_id = NULL, wrapped_key = NULL")
        )
    assert_problem(await anybody.get("/v1/uploads", headers=headers), 401)


async def test_a_key_can_have_several_scopes(
    anybody: httpx.AsyncClient, alice: str, database: Database
) -> None:
    async with database.transaction() as connection:
        _, secret = await add_api_key(connection, KEY_RING, "both", BACKEND | {Scope.OPERATOR})
    for path in ("/v1/uploads", f"/v1/users/{alice}"):
        assert (await anybody.get(path, headers=bearer(secret))).status_code == 200


async def test_a_missing_scope_is_a_403_that_names_it(
    anybody: httpx.AsyncClient, keys: Keys
) -> None:
    response = await anybody.post(
        "/v1/users", json={"appUserId": "x"}, headers=bearer(keys.operator)
    )
    assert "users" in assert_problem(response, 403)["detail"]
