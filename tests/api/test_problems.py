"""Errors that no route answers by itself, and values that nobody sends by accident."""

import re

import httpx
import orjson
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from tests.api.door import NOBODYS_ID, assert_problem, submit
from uplift.api.problems import Problem
from uplift.errors import Conflict

_UNKNOWN = [
    "/",
    "/v1",
    "/v1/",
    "/v1/nothing",
    "/v1/uploads/",
    "/v1/users/",
    "/v1/users/alice/",
    "/v1/users/alice/nothing",
    "/V1/uploads",
    "//v1/uploads",
    "/v1//uploads",
    "/v1/uploads%2F",
    "/%00",
    "/caf%C3%A9/%FF",
    "/" + "x" * 20_000,
    "/.env",
    "/docs/",
]


async def test_an_unknown_address_is_a_404_and_never_a_redirect(
    client: httpx.AsyncClient,
) -> None:
    for path in _UNKNOWN:
        for method in ("GET", "POST", "DELETE"):
            assert_problem(await client.request(method, f"http://uplift{path}"), 404)


def _methods_by_path(app: FastAPI) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for route in iter_route_contexts(app.routes):
        found.setdefault(str(route.path), set()).update(route.methods or set())
    return found


async def test_a_method_that_an_address_lacks_is_a_405_that_names_all_it_has(
    client: httpx.AsyncClient, app: FastAPI
) -> None:
    for path, methods in _methods_by_path(app).items():
        url = re.sub(r"{\w+(:path)?}", NOBODYS_ID, path)
        if path == "/v1/uploads/redrive":  # also the address of an upload, but for its id
            methods = methods | _methods_by_path(app)["/v1/uploads/{upload_id}"]
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} - methods:
            response = await client.request(method, url)
            problem = assert_problem(response, 405)
            allowed = response.headers["allow"].split(", ")
            assert set(allowed) == methods, (method, path)
            assert all(each in problem["detail"] for each in allowed)


_HOSTILE = [
    "\x00",
    "%00",
    "a\r\nb",
    "\x1b[31m",
    "\x7f",
    "\u2028\u2029",
    "\u202e\u200b\ufeff",
    "\U0001f600" * 100,
    "\ufffd\uffff",
    "x" * 10_000,
    "' OR 1=1; --",
    "$(id)`id`",
    "../../etc/passwd",
    "..%2F..%2F",
    "{{7*7}}${7*7}",
    "%s%n%d",
    "null",
    "NaN",
    "-1",
    "1e400",
    "9" * 400,
]


async def test_hostile_values_are_never_a_failure_of_ours(
    client: httpx.AsyncClient, alice: str
) -> None:
    await submit(client)
    for value in _HOSTILE:
        quoted = "".join(f"%{byte:02X}" for byte in value.encode())
        envelope = {
            "user": "alice",
            "fhirVersion": value,
            "source": value,
            "recordId": value,
            "resource": {"resourceType": "Basic", "id": value, value: value},
        }
        responses = [
            await client.get(f"/v1/uploads/{quoted}"),
            await client.get(f"/v1/users/{quoted}"),
            await client.get(f"/v1/{quoted}"),
            await client.put(
                f"/v1/users/{quoted}/grant", json={"accessToken": value, "expiresIn": value}
            ),
            await client.post(f"/v1/users/{quoted}/device-tokens", json={"expiresIn": value}),
            *[
                await client.get("/v1/uploads", params={name: value})
                for name in ("user", "status", "after", "limit", "nothing", value)
            ],
            *[
                await client.post("/v1/uploads", json=envelope | changed)
                for changed in ({}, {"fhirVersion": "R4"}, {"user": value}, {"resource": value})
            ],
            *[
                await client.post(
                    "/v1/uploads",
                    params={"user": "alice", "fhirVersion": "R4", name: value},
                    content=orjson.dumps({"resourceType": "Basic"}),
                    headers={"Content-Type": "application/json"},
                )
                for name in ("user", "fhirVersion", "source", "recordId")
            ],
            await client.get(
                "/v1/uploads", headers=[(b"If-None-Match", value.encode()), (b"Accept", b"*")]
            ),
            await client.post(
                "/v1/uploads", content=b"{}", headers=[(b"Content-Type", value.encode())]
            ),
        ]
        for response in responses:
            assert response.status_code < 500, (value, response.request.url, response.text)
            if response.status_code >= 400:
                assert_problem(response, response.status_code)


async def test_bytes_that_are_no_utf_8_in_an_address_are_never_a_failure_of_ours(
    client: httpx.AsyncClient,
) -> None:
    for quoted in ("%FF", "%C0%AF", "%ED%A0%80", "%ED%B0%AF", "%", "%zz", "%u2603"):
        for path in (f"/v1/users/{quoted}", f"/v1/uploads?user={quoted}", f"/{quoted}"):
            response = await client.get(f"http://uplift{path}")
            assert_problem(response, 404)


async def test_what_the_relay_raises_has_its_own_status(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    """Errors that no route raises yet are mapped all the same."""

    @app.get("/conflict")
    async def conflict() -> None:
        raise Conflict("The body is gone; submit the record again.")

    @app.get("/problem")
    async def problem() -> None:
        raise Problem(400, "No", "Do this.", headers={"X-More": "1"})

    problem_json = assert_problem(await client.get("/conflict"), 409)
    assert problem_json["detail"] == "The body is gone; submit the record again."
    assert (await client.get("/problem")).headers["x-more"] == "1"


async def test_an_error_that_nobody_foresaw_is_a_500_that_says_nothing_of_itself(
    app: FastAPI, client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    @app.get("/bug")
    async def bug() -> None:
        raise LookupError("the canary's name")

    response = await client.get("/bug")
    assert_problem(response, 500)
    shown = capfd.readouterr()
    assert "canary" not in response.text + shown.out + shown.err
