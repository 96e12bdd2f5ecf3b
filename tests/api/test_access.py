"""Every route with every caller. A route without a rule here fails: say who may use it first."""

from typing import Any, NamedTuple

import httpx
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from tests import factories
from tests.api.calls import assert_problem, bearer, device_token, submit
from tests.factories import resource
from tests.keys import KEY_RING
from uplift.ledger.credentials import (
    NewDeviceToken,
    Scope,
    add_api_key,
    add_device_token,
    revoke,
)
from uplift.ledger.database import Database
from uplift.ledger.users import find_user
from uplift.wiring import Relay

_UPLOAD = {"fhirVersion": "R4", "resource": resource()}
_GRANT = {"accessToken": "a", "refreshToken": "r", "expiresIn": 60}

_BUNDLE = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": resource()}]}

_TOKEN = {"expiresIn": 60, "name": "phone"}

_NOBODY = ("none", "wrong", "revoked", "expired device", "revoked device", "forged device")


class _Rule(NamedTuple):
    """The status that each caller with a valid credential gets. Everybody else gets `nobody`.

    A key gets `status` if it has one of these scopes, else 403. The request is about alice.
    `device` is a device of alice, `other` is a device of bob.
    """

    status: int
    scopes: str
    device: int
    other: int
    nobody: int = 401
    json: Any = None
    query: str = ""

    def of_key(self, scope: Scope) -> int:
        """What a key with this scope alone gets."""
        return self.status if scope in self.scopes.split() or self.nobody == 200 else 403


_PUBLIC = _Rule(200, "", 200, 200, nobody=200)
# Erasing comes last: it may erase alice.
_KEYS = (Scope.OPERATOR, Scope.READ_BACK, Scope.USERS, Scope.SUBMIT, Scope.ERASE)

_RULES: dict[tuple[str, str], _Rule] = {
    ("POST", "/v1/uploads"): _Rule(202, "submit", 202, 403, json={"user": "alice", **_UPLOAD}),
    ("GET", "/v1/uploads"): _Rule(200, "submit operator", 200, 200),
    ("GET", "/v1/uploads/{upload_id}"): _Rule(200, "submit operator", 200, 404),
    ("GET", "/v1/uploads/{upload_id}/attempts"): _Rule(200, "submit operator", 200, 404),
    ("DELETE", "/v1/uploads/{upload_id}"): _Rule(200, "submit operator", 200, 404),
    ("POST", "/v1/uploads/{upload_id}/redrive"): _Rule(200, "submit operator", 403, 403),
    ("POST", "/v1/uploads/{upload_id}/try-now"): _Rule(200, "submit operator", 403, 403),
    ("POST", "/v1/uploads/try-now"): _Rule(200, "operator", 403, 403, json={"all": True}),
    ("POST", "/v1/uploads/redrive"): _Rule(200, "operator", 403, 403, json={"all": True}),
    ("GET", "/v1/pauses"): _Rule(200, "submit users operator", 403, 403),
    ("PUT", "/v1/pause"): _Rule(200, "operator", 403, 403),
    ("DELETE", "/v1/pause"): _Rule(204, "operator", 403, 403),
    ("PUT", "/v1/users/{user}/pause"): _Rule(200, "operator", 403, 403),
    ("DELETE", "/v1/users/{user}/pause"): _Rule(204, "operator", 403, 403),
    ("POST", "/v1/batches"): _Rule(202, "submit", 202, 403, json=_BUNDLE, query="?user=alice"),
    ("GET", "/v1/batches"): _Rule(200, "submit operator", 200, 200),
    ("GET", "/v1/batches/{batch_id}"): _Rule(200, "submit operator", 200, 404),
    ("GET", "/v1/batches/{batch_id}/lines"): _Rule(200, "submit operator", 200, 404),
    ("POST", "/v1/users"): _Rule(201, "users", 403, 403, json={"appUserId": "carol"}),
    ("GET", "/v1/users/{user}"): _Rule(200, "users operator", 403, 403),
    ("PUT", "/v1/users/{user}/grant"): _Rule(200, "users", 403, 403, json=_GRANT),
    ("PUT", "/v1/users/{user}/destination"): _Rule(
        200, "users", 403, 403, json={"destination": "oneup"}
    ),
    # Its destination, 1upHealth, has records keep their subject.
    ("PUT", "/v1/users/{user}/patient"): _Rule(409, "users", 403, 403, json={"id": "p1"}),
    ("POST", "/v1/users/{user}/resend"): _Rule(200, "users", 403, 403),
    ("GET", "/v1/users"): _Rule(200, "users operator", 403, 403),
    ("GET", "/v1/users/{user}/summary"): _Rule(200, "submit users operator", 200, 403),
    ("DELETE", "/v1/users/{user}"): _Rule(200, "erase", 403, 403),
    ("POST", "/v1/users/{user}/device-tokens"): _Rule(201, "users", 403, 403, json=_TOKEN),
    ("GET", "/v1/users/{user}/device-tokens"): _Rule(200, "users", 403, 403),
    ("DELETE", "/v1/users/{user}/device-tokens"): _Rule(204, "users", 403, 403),
    ("DELETE", "/v1/users/{user}/device-tokens/{token_id}"): _Rule(204, "users", 403, 403),
    ("GET", "/healthz"): _PUBLIC,
    ("GET", "/readyz"): _PUBLIC,
    ("GET", "/.well-known/jwks.json"): _PUBLIC,
    ("GET", "/openapi.json"): _PUBLIC,
    ("GET", "/docs"): _PUBLIC,
    ("GET", "/docs/errors.md"): _PUBLIC,
    ("GET", "/docs/start.js"): _PUBLIC,
    ("GET", "/docs/swagger-ui-bundle.js"): _PUBLIC,
    ("GET", "/docs/swagger-ui.css"): _PUBLIC,
    ("GET", "/v1/users/{user}/fhir/{version}/metadata"): _PUBLIC,
    # alice has no grant, so a caller who may ask gets a conflict
    ("GET", "/v1/users/{user}/fhir/{version}/{path:path}"): _Rule(409, "read_back", 403, 403),
}


def _routes(app: FastAPI) -> set[tuple[str, str]]:
    return {
        (method, str(route.path))
        for route in iter_route_contexts(app.routes)
        for method in route.methods or {"ANY"}
        if method != "HEAD"  # only the pages that describe the API have it
    }


def test_every_route_has_a_rule_and_every_rule_a_route(app: FastAPI) -> None:
    assert _routes(app) == set(_RULES)


async def test_each_caller_may_do_what_the_rule_says(
    relay: Relay,
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    database: Database,
) -> None:
    wrong = {}
    keys = await _keys(database)
    for (method, path), rule in _RULES.items():
        # Again for each route, because a route before may have erased alice.
        for name in ("alice", "bob"):
            await factories.user_without_grant(relay, name)
        token = await _revoked_token(database)
        upload = await submit(client, "alice", id=f"of {method} {path}")
        batch = (await client.post("/v1/batches?user=alice", json=_BUNDLE)).json()
        url = path.replace(":path}", "}").format(
            upload_id=upload["id"],
            batch_id=batch["id"],
            user="alice",
            token_id=token.id,
            version="R4",
            path="Observation",
        )
        expected = {
            **dict.fromkeys(_NOBODY, rule.nobody),
            "other": rule.other,
            "device": rule.device,
            **{str(scope): rule.of_key(scope) for scope in _KEYS},
        }
        secrets = {**await _device_tokens(database, token), **keys}
        for caller, secret in secrets.items():
            response = await anybody.request(
                method, url + rule.query, json=rule.json, headers=bearer(secret) if secret else {}
            )
            if response.status_code >= 400:
                assert_problem(response, response.status_code)
            if response.status_code != expected[caller]:
                wrong[method, path, caller] = (response.status_code, expected[caller])
    assert wrong == {}


async def _revoked_token(database: Database) -> NewDeviceToken:
    """A revoked token of a device of alice."""
    async with database.transaction() as connection:
        user = await find_user(connection, "alice")
        assert user is not None
        token = await add_device_token(connection, KEY_RING, user.id, 600)
        await revoke(connection, token.id)
    return token


async def _keys(database: Database) -> dict[str, str | None]:
    """The API key of each caller, or none."""
    async with database.transaction() as connection:
        key_id, revoked_key = await add_api_key(
            connection, KEY_RING, "revoked", frozenset(set(Scope))
        )
        await revoke(connection, key_id)
        keys: dict[str, str | None] = {
            scope: (await add_api_key(connection, KEY_RING, scope, frozenset({scope})))[1]
            for scope in _KEYS
        }
    return {"none": None, "wrong": "uplift_key_wrong", "revoked": revoked_key, **keys}


async def _device_tokens(database: Database, revoked: NewDeviceToken) -> dict[str, str | None]:
    """The token of each device."""
    return {
        "expired device": await device_token(database, "alice", -1),
        "revoked device": revoked.secret,
        "forged device": revoked.secret[:-1] + ("A" if revoked.secret[-1] != "A" else "B"),
        "other": await device_token(database, "bob"),
        "device": await device_token(database, "alice"),
    }
