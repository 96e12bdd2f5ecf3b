"""From errors to problems: the pure rules, and what no route answers by itself."""

import re

import httpx
import orjson
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from tests.api.calls import NOBODYS_ID, assert_problem, submit
from uplift.api.idempotency import KEY_PATTERN
from uplift.api.plain_words import PATTERNS
from uplift.api.problems import Problem, problem_of
from uplift.api.upload_openapi import VERSION_PATTERN
from uplift.errors import (
    BacklogFull,
    ConfigurationError,
    Conflict,
    InvalidRead,
    KeyReused,
    NotFound,
    SealError,
    UnreadableUpload,
    UpstreamTimedOut,
    UpstreamUnavailable,
)
from uplift.problem_types import ProblemType
from uplift.users.names import NOT_PRINTABLE

_DATABASE_AWAY = OperationalError("canary", None, Exception("canary"))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnreadableUpload(ProblemType.NOT_JSON, "Canary"), 400),
        (InvalidRead(ProblemType.INVALID_READ, "Canary"), 400),
        (NotFound(ProblemType.NO_SUCH_USER, "Canary"), 404),
        (Conflict(ProblemType.BATCH_EXISTS, "Canary"), 409),
        (KeyReused(ProblemType.IDEMPOTENCY_KEY_REUSED, "Canary"), 422),
        (UpstreamTimedOut(ProblemType.UPSTREAM_TIMED_OUT, "Canary"), 504),
        (UpstreamUnavailable(ProblemType.UPSTREAM_UNAVAILABLE, "Canary"), 503),
        (BacklogFull(ProblemType.BACKLOG_FULL, "Canary", retry_after=3), 503),
        (ConfigurationError("canary"), 503),
        (SealError("canary"), 503),
        (_DATABASE_AWAY, 503),
        (PoolTimeout("canary"), 503),
        (IntegrityError("canary", None, Exception("canary")), 500),
        # Its batch is gone: a standby without the last commits was promoted.
        (IntegrityError("canary", None, ForeignKeyViolation("canary")), 503),
        (DataError("canary", None, Exception("canary")), 500),
        (HTTPException(418, "Canary"), 400),
        (LookupError("canary"), 500),
    ],
)
def test_each_error_has_its_status_and_only_messages_for_callers_are_shown(
    error: Exception, status: int
) -> None:
    problem = problem_of(error, "POST")
    assert problem.kind.status == status
    assert ("retry-after" in {name.lower() for name in problem.headers}) == (status == 503)
    assert "canary" not in problem.detail


@pytest.mark.parametrize("error", [_DATABASE_AWAY, SealError(), LookupError()])
@pytest.mark.parametrize(
    ("method", "advice"),
    [
        ("GET", "Accepted uploads are safe. Ask again later."),
        ("HEAD", "Accepted uploads are safe. Ask again later."),
        ("POST", "Nothing was accepted. Send the request again later."),
        ("PUT", "Send the request again later. It is safe to repeat."),
        ("DELETE", "Send the request again later. It is safe to repeat."),
    ],
)
def test_after_a_failure_only_a_post_hears_that_nothing_was_accepted(
    error: Exception, method: str, advice: str
) -> None:
    assert problem_of(error, method).detail.endswith(advice)


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


async def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    client: httpx.AsyncClient, app: FastAPI
) -> None:
    for path, methods in _methods_by_path(app).items():
        url = re.sub(r"{\w+(:path)?}", NOBODYS_ID, path)
        if path in (
            "/v1/uploads/redrive",
            "/v1/uploads/try-now",
        ):  # fits the pattern of an upload too
            methods = methods | _methods_by_path(app)["/v1/uploads/{upload_id}"]
        methods = methods | ({"HEAD"} if "GET" in methods else set())
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


async def test_hostile_values_never_make_the_api_fail(
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


async def test_bytes_in_an_address_that_are_not_utf_8_never_make_the_api_fail(
    client: httpx.AsyncClient,
) -> None:
    for quoted in ("%FF", "%C0%AF", "%ED%A0%80", "%ED%B0%AF", "%", "%zz", "%u2603"):
        for path in (f"/v1/users/{quoted}", f"/v1/uploads?user={quoted}", f"/{quoted}"):
            response = await client.get(f"http://uplift{path}")
            # In a query, two values that are no UTF-8 would be one.
            assert_problem(
                response, 400 if "\ufffd" in response.url.params.get("user", "") else 404
            )


async def test_an_error_of_the_relay_has_its_own_status(
    app: FastAPI, client: httpx.AsyncClient
) -> None:

    @app.get("/conflict")
    async def conflict() -> None:
        raise Conflict(ProblemType.NOT_REDRIVABLE, "The body is gone; submit the record again.")

    @app.get("/problem")
    async def problem() -> None:
        raise Problem(ProblemType.INVALID_REQUEST, "Do this.", headers={"X-More": "1"})

    problem_json = assert_problem(await client.get("/conflict"), 409)
    assert problem_json["detail"] == "The body is gone; submit the record again."
    assert (await client.get("/problem")).headers["x-more"] == "1"


async def test_an_unexpected_error_is_a_500_that_reveals_nothing(
    app: FastAPI, client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    @app.get("/bug")
    async def bug() -> None:
        raise LookupError("the canary's name")

    response = await client.get("/bug")
    assert_problem(response, 500)
    shown = capfd.readouterr()
    assert "canary" not in response.text + shown.out + shown.err


_NAMES = ["a\nb", "\x00", "a\x7f", "\u202eecila", "\u2028"]


@pytest.mark.parametrize("name", _NAMES)
async def test_a_name_with_a_character_that_nobody_sees_is_refused_in_words(
    client: httpx.AsyncClient, name: str
) -> None:
    for response in (
        await client.post("/v1/users", json={"appUserId": name}),
        await client.get("/v1/uploads", params={"user": name}),
        await client.get("/v1/batches", params={"user": name}),
    ):
        (error,) = assert_problem(response, 400)["errors"]
        assert error["what"] == NOT_PRINTABLE
        assert name not in response.text


async def test_a_pattern_is_said_in_words(client: httpx.AsyncClient) -> None:
    patient, grant = "/v1/users/alice/patient", "/v1/users/alice/grant"
    for response, said in (
        (await client.get("/v1/uploads?resourceType=A-1"), "1 to 64 letters"),
        (await client.put(patient, json={"id": "Patient/1"}), "1 to 64 characters"),
        (await client.put(patient, json={"id": ".1"}), "no dot in front"),
        (await client.put(grant, json={"accessToken": "a b", "expiresIn": 1}), "no spaces"),
    ):
        (error,) = assert_problem(response, 400)["errors"]
        assert said in error["what"]
        assert "^" not in error["what"]


def test_every_pattern_that_a_model_has_is_said_in_words(app: FastAPI) -> None:
    """Those of the others are of what routes read by themselves, with words of their own."""
    by_hand = {VERSION_PATTERN, KEY_PATTERN, r"^[^\x00-\x1f\x7f]+$"}
    found = set(re.findall(r'"pattern":("(?:[^"\\]|\\.)*")', orjson.dumps(app.openapi()).decode()))
    patterns = {orjson.loads(each) for each in found}
    assert patterns - by_hand == set(PATTERNS) & patterns
    assert len(patterns) >= 4
