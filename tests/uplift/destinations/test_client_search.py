"""Searches over HTTP: the requests, and which pages are followed."""

import time
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest

from tests.uplift.destinations.remote import Connection, Remote, serve
from tests.uplift.destinations.test_client import client
from uplift.destinations.responses import Response, ResponseKind
from uplift.fhir.versions import FhirVersion

OURS = {"resourceType": "Observation", "id": "1", "status": "final"}
OTHER = {"resourceType": "Observation", "id": "2", "status": "amended"}


async def search(remote: Remote, *, base: str = "", **more: Any) -> Response:
    async with client(f"{remote.url}{base}") as fhir:
        return await fhir.search(
            **{
                "authorization": "Bearer the-token",
                "version": FhirVersion.R4,
                "resource_type": "Observation",
                "identifier": "urn:s|A 1/2&x+ü#",
                "ours": OURS,
                "body_bytes": 100,
                "deadline": time.monotonic() + 5,
                **more,
            }
        )


def page(*resources: dict[str, Any], following: Any = None) -> bytes:
    link = [] if following is None else [{"relation": "next", "url": following}]
    entry = [{"resource": each} for each in resources]
    return orjson.dumps(
        {"resourceType": "Bundle", "type": "searchset", "link": link, "entry": entry}
    )


async def nothing(connection: Connection) -> None:
    await connection.read()
    await connection.response(200, page())


def awaiting_token(*followings: str) -> Any:
    """Pages without our content, each with the next link that is given, then one with it."""
    left = [*followings]

    async def answering(connection: Connection) -> None:
        while True:
            await connection.read()
            if left:
                following = left.pop(0).replace("BASE", connection.remote.url)
                await connection.response(200, page(OTHER, following=following))
            else:
                await connection.response(200, page(OURS))

    return answering


async def test_a_search_is_what_1uphealth_documents() -> None:
    async with serve(nothing) as remote:
        response = await search(remote)
    (request,) = remote.requests
    assert response.kind is ResponseKind.ABSENT
    method, address, _ = request.line.split()
    path, _, query = address.partition("?")
    assert (method, path) == ("GET", "/r4/Observation")
    assert parse_qsl(query, strict_parsing=True) == [
        ("identifier", "urn:s|A 1/2&x+ü#"),
        ("_count", "100"),
    ]
    assert request.header("authorization") == "Bearer the-token"
    assert request.header("accept") == "application/json"
    assert request.body == b""


async def test_pages_of_large_resources_are_short_enough_to_be_read() -> None:
    async with serve(nothing) as remote:
        await search(remote, body_bytes=8 * 1024 * 1024)
        await search(remote, body_bytes=200 * 1024)
    assert [each.line.partition("_count=")[2] for each in remote.requests] == [
        "1 HTTP/1.1",
        "11 HTTP/1.1",
    ]


@pytest.mark.parametrize("base", ["", "/fhir"])
@pytest.mark.parametrize("linked", ["BASE/r4", "BASE/fhir/r4"])
async def test_pages_are_followed_until_it_is_found(base: str, linked: str) -> None:
    links = [f"{linked}/Observation?identifier=x&_skip={n}" for n in (1, 2)]
    async with serve(awaiting_token(*links)) as remote:
        response = await search(remote, base=base)
    assert response.kind is ResponseKind.FOUND
    assert [each.line for each in remote.requests][1:] == [
        f"GET {base}/r4/Observation?identifier=x&_skip={n} HTTP/1.1" for n in (1, 2)
    ]


@pytest.mark.parametrize(
    "following",
    [
        "https://elsewhere.invalid/r4/Observation?_skip=1",
        "BASE.invalid/r4/Observation?_skip=1",
        "BASE/dstu2/Observation?_skip=1",
        "BASE/r4/Condition?_skip=1",
        "BASE/r4/Observation/1",
        "BASE/r4/Observation/../Condition?_skip=1",
        "BASE/r4/Observation?access_token=x",
        "/r4/Observation?_skip=1",
        "",
    ],
)
async def test_a_link_that_leads_elsewhere_is_not_followed_and_proves_nothing(
    following: str,
) -> None:
    async with serve(awaiting_token(following)) as remote:
        response = await search(remote)
    assert (response.kind, response.code) == (ResponseKind.UNKNOWN, "next_page_elsewhere")
    assert len(remote.requests) == 1


async def test_a_search_without_end_is_given_up_and_proves_nothing() -> None:
    links = ["BASE/r4/Observation?_skip=1"] * 100
    async with serve(awaiting_token(*links)) as remote:
        response = await search(remote)
    assert (response.kind, response.code) == (ResponseKind.UNKNOWN, "search_without_end")
    assert len(remote.requests) == 20


async def test_a_cut_on_a_later_page_proves_nothing() -> None:
    async def cut_second(connection: Connection) -> None:
        await connection.read()
        link = f"{connection.remote.url}/r4/Observation?_skip=1"
        await connection.response(200, page(following=link))
        await connection.read()

    async with serve(cut_second) as remote:
        response = await search(remote)
    assert response.kind is ResponseKind.UNKNOWN
    assert len(remote.requests) == 2


async def test_a_large_page_is_searched_too() -> None:
    large = {**OTHER, "note": [{"text": "x" * 100_000}]}

    async def answering(connection: Connection) -> None:
        await connection.read()
        await connection.response(200, page(large, OURS))

    async with serve(answering) as remote:
        assert (await search(remote)).kind is ResponseKind.FOUND


async def test_a_token_that_no_header_can_carry_counts_as_refused() -> None:
    async with serve(nothing) as remote:
        response = await search(remote, authorization="Bearer two\nlines")
    assert (response.kind, response.code) == (ResponseKind.UNAUTHORIZED, "unusable_token")
    assert not remote.requests
