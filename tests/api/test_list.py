"""GET /v1/uploads: pages, filters, and whose uploads a caller sees."""

from typing import Any

import httpx

from tests import factories
from tests.api.calls import NOBODYS_ID, Keys, assert_problem, bearer, device_token, move, submit
from uplift.ledger.database import Database
from uplift.lifecycle import State
from uplift.wiring import Relay


async def _ids(client: httpx.AsyncClient, **params: Any) -> list[str]:
    response = await client.get("/v1/uploads", params=params)
    assert response.status_code == 200, response.text
    return [upload["id"] for upload in response.json()["uploads"]]


async def _follow(client: httpx.AsyncClient, **params: Any) -> list[list[str]]:
    """The ids of every page, following `next` until there is none."""
    pages = []
    page = (await client.get("/v1/uploads", params=params)).json()
    while True:
        pages.append([upload["id"] for upload in page["uploads"]])
        if page["next"] is None:
            return pages
        page = (await client.get(page["next"])).json()


async def test_without_uploads_the_list_is_empty(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/uploads")).json() == {"uploads": [], "next": None}


async def test_uploads_are_listed_the_newest_first_with_their_whole_status(
    client: httpx.AsyncClient, alice: str
) -> None:
    accepted = [await submit(client, id=f"o{number}") for number in range(5)]
    assert (await client.get("/v1/uploads")).json() == {"uploads": accepted[::-1], "next": None}


async def test_next_leads_through_every_page_and_ends(
    client: httpx.AsyncClient, alice: str
) -> None:
    accepted = [(await submit(client, id=f"o{number}"))["id"] for number in range(7)]
    for order, expected in (("desc", accepted[::-1]), ("asc", accepted)):
        pages = await _follow(client, limit=3, order=order)
        assert [id_ for page in pages for id_ in page] == expected
        assert [len(page) for page in pages] == [3, 3, 1]
    assert_problem(await client.get("/v1/uploads?order=newest"), 400)


async def test_when_the_last_page_is_full_an_empty_one_may_follow_and_then_it_ends(
    client: httpx.AsyncClient, alice: str
) -> None:
    accepted = [(await submit(client, id=f"o{number}"))["id"] for number in range(4)]
    pages = await _follow(client, limit=2)
    assert [id_ for page in pages for id_ in page] == accepted[::-1]
    assert len(pages) <= 3


async def test_next_keeps_every_filter(
    client: httpx.AsyncClient, relay: Relay, database: Database
) -> None:
    name = "Zo\u00eb & b=c/d+e?#%2F\u2603"
    await factories.user_without_grant(relay, name)
    await factories.user_without_grant(relay, "other")
    wanted = []
    for number in range(6):
        status = await submit(client, name, id=f"o{number}")
        await submit(client, "other", id=f"o{number}")
        if number % 3 == 0:
            await move(database, status["id"], State.CANCELLED)
        if number % 3 == 1:
            await move(database, status["id"], State.DELIVERED)
        if number % 3 != 2:
            wanted.append(status["id"])
    pages = await _follow(
        client,
        user=name,
        status=["cancelled", "delivered"],
        resourceType="Observation",
        fhirVersion="R4",
        order="asc",
        updatedSince="2020-01-01T00:00:00+05:00",
        updatedBefore="2120-01-01T00:00:00Z",
        limit=1,
    )
    assert [id_ for page in pages for id_ in page] == wanted


async def test_status_may_be_repeated(
    client: httpx.AsyncClient, alice: str, database: Database
) -> None:
    queued = (await submit(client, id="q"))["id"]
    cancelled = (await submit(client, id="c"))["id"]
    parked = (await submit(client, id="p"))["id"]
    await move(database, cancelled, State.CANCELLED)
    await move(database, parked, State.PARKED, clock=60.0)
    assert await _ids(client, status="queued") == [queued]
    assert await _ids(client, status=["parked", "cancelled"]) == [parked, cancelled]
    assert await _ids(client, status="sending") == []


async def test_after_is_exclusive_and_does_not_have_to_exist(
    client: httpx.AsyncClient, alice: str
) -> None:
    first, second = [(await submit(client, id=f"o{number}"))["id"] for number in range(2)]
    assert await _ids(client, order="asc", after=first) == [second]
    assert await _ids(client, order="asc", after=second) == []
    assert await _ids(client, order="asc", after=NOBODYS_ID) == [first, second]
    assert await _ids(client, after=second) == [first]
    assert await _ids(client, after=first) == []


async def test_a_page_has_a_hundred_uploads_by_default(
    client: httpx.AsyncClient, alice: str
) -> None:
    for number in range(101):
        await submit(client, id=f"o{number}")
    page = (await client.get("/v1/uploads")).json()
    assert len(page["uploads"]) == 100
    assert len(await _ids(client, limit=500)) == 101


async def test_an_unknown_user_is_a_404(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/v1/uploads", params={"user": "nobody"}), 404)


async def test_a_device_lists_its_own_users_uploads_and_no_others(
    client: httpx.AsyncClient,
    anybody: httpx.AsyncClient,
    alice: str,
    bob: str,
    database: Database,
) -> None:
    hers = (await submit(client, "alice"))["id"]
    his = (await submit(client, "bob"))["id"]
    anybody.headers.update(bearer(await device_token(database, "alice")))
    assert await _ids(anybody) == [hers]
    assert await _ids(anybody, user="alice") == [hers]
    assert [id_ for page in await _follow(anybody, limit=1) for id_ in page] == [hers]
    assert await _ids(anybody, order="asc", after=NOBODYS_ID, status="queued") == [hers]
    others = await anybody.get("/v1/uploads", params={"user": "bob"})
    unknown = await anybody.get("/v1/uploads", params={"user": "nobody"})
    assert assert_problem(others, 403) == assert_problem(unknown, 403)
    assert his not in others.text


async def test_an_operator_lists_every_users_uploads(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, alice: str, bob: str, keys: Keys
) -> None:
    both = [(await submit(client, name))["id"] for name in ("alice", "bob")]
    anybody.headers.update(bearer(keys.operator))
    assert await _ids(anybody) == both[::-1]
    assert await _ids(anybody, user="bob") == both[1:]


async def test_a_bad_query_value_is_a_400_that_names_the_parameter_but_not_the_value(
    client: httpx.AsyncClient,
) -> None:
    for name, values in {
        "limit": ["0", "-1", "501", "ten", "", "1.5", "9" * 5000],
        "status": ["", "done", "QUEUED", "queued,sending", "\x00"],
        "after": ["", "1", "\x00", NOBODYS_ID[:-1]],
        "user": ["", "\x00", "a\nb", "\x7f", "x" * 257],
    }.items():
        for value in values:
            response = await client.get("/v1/uploads", params={name: value})
            problem = assert_problem(response, 400)
            assert problem["errors"][0]["where"].startswith(f"query.{name}"), value
            assert len(value) < 4 or value not in response.text
