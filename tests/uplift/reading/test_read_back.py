"""Reading back through a user's token, against a simulated 1upHealth and bare sockets."""

import asyncio
import time
from typing import Any

import orjson
import pytest

from tests import factories
from tests.uplift.destinations.remote import Answering, Connection, serve
from uplift.errors import (
    Conflict,
    InvalidRead,
    NotFound,
    UnusableResponse,
    UpliftError,
    UpstreamTimedOut,
    UpstreamUnavailable,
)
from uplift.fhir.interactions import Interaction, parse_interaction
from uplift.fhir.versions import FhirVersion
from uplift.ledger.audit import Action, Actor, list_events
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.users import find_user
from uplift.queues import UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

_READ = {"api": "fhir", "method": "GET"}
BY = Actor("key:test")


def address_of(interaction: Interaction) -> str:
    return f"/here/{interaction.version}/{interaction.address}"


async def read(
    relay: Relay, path: str, query: str = "", *, user: str = "alice", version: str = "R4"
) -> bytes:
    interaction = parse_interaction(FhirVersion(version), path, query.encode())
    return await relay.reader.read(user, interaction, address_of, by=BY)


async def delivered(relay: Relay, **submitted: Any) -> None:
    await factories.accepted(relay, **submitted)
    await relay.deliverer.deliver(UPLOADS)


async def read_from(
    settings: Settings, answering: Answering, path: str, query: str = "", **changed: Any
) -> tuple[bytes | UpliftError, list[str]]:
    """The result of a read from a bare server, and the lines of the requests that it got."""
    async with serve(answering) as remote:
        base = changed.pop("base", "")
        changed["oneup_fhir_url"] = remote.url + base
        async with open_relay(settings.model_copy(update=changed)) as relay:
            await relay.provisioner.bring_grant("alice", TokenPair("a", "r", 7200))
            try:
                result: bytes | UpliftError = await read(relay, path, query)
            except UpliftError as error:
                result = error
        return result, [request.line for request in remote.requests]


def responses(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Answering:
    async def answering(connection: Connection) -> None:
        while True:
            await connection.read()
            here = connection.remote.url.encode()
            await connection.response(status, body.replace(b"{here}", here), headers)

    return answering


async def test_a_resource_comes_back_with_the_bytes_that_1uphealth_sent(
    relay: Relay, settings: Settings
) -> None:
    body = '{ "resourceType":"Observation",\n"id":"1", "v": 1.50, "t":"\\u00fc ü" }'.encode()
    result, lines = await read_from(settings, responses(body), "Observation/1")
    assert result == body
    assert lines == ["GET /r4/Observation/1 HTTP/1.1"]


async def test_a_page_keeps_its_bytes_except_its_links(relay: Relay, settings: Settings) -> None:
    entries = '[ {"resource": {"resourceType":"Observation", "v": 1.50, "t":"\\u00fc ü"}} ]'
    page = (
        '{"resourceType":"Bundle", "total" : 3,'
        ' "link":[{"relation":"self","url":"{here}/r4/Observation"},'
        ' {"relation":"next","url":"{here}/r4/Observation?_skip=1&code=a%7Cb"}],'
        f' "entry":{entries}}}'
    )
    result, _ = await read_from(settings, responses(page.encode()), "Observation")
    assert isinstance(result, bytes)
    assert f'"entry":{entries}'.encode() in result
    assert orjson.loads(result) == {
        **orjson.loads(page),
        "link": [
            {"relation": "self", "url": "/here/R4/Observation"},
            {"relation": "next", "url": "/here/R4/Observation?_skip=1&code=a%7Cb"},
        ],
    }


async def test_a_page_that_the_server_keeps_and_links_to_at_its_base_is_followed(
    relay: Relay, settings: Settings
) -> None:
    kept = "?_getpages=0b1c-2d&_getpagesoffset=10&_count=10&_bundletype=searchset"
    links = [{"relation": "next", "url": f"{{here}}/r4{kept}"}]
    page = orjson.dumps({"resourceType": "Bundle", "link": links})
    result, _ = await read_from(settings, responses(page), "Observation")
    assert isinstance(result, bytes)
    assert orjson.loads(result)["link"] == [{"relation": "next", "url": f"/here/R4/{kept}"}]
    # As the caller follows that link.
    result, lines = await read_from(settings, responses(page), "", kept.removeprefix("?"))
    assert isinstance(result, bytes)
    assert lines == [f"GET /r4{kept} HTTP/1.1"]


@pytest.mark.parametrize("base", ["", "/fhir"])
@pytest.mark.parametrize("linked", ["", "/fhir"])
async def test_links_may_have_the_old_form_of_the_base_or_the_new(
    relay: Relay, settings: Settings, base: str, linked: str
) -> None:
    url = f"{{here}}{linked}/r4/Observation?_skip=1"
    page = orjson.dumps({"resourceType": "Bundle", "link": [{"relation": "next", "url": url}]})
    result, lines = await read_from(settings, responses(page), "Observation", base=base)
    assert isinstance(result, bytes)
    assert orjson.loads(result)["link"][0]["url"] == "/here/R4/Observation?_skip=1"
    assert lines == [f"GET {base}/r4/Observation HTTP/1.1"]


async def test_a_next_link_that_leads_elsewhere_is_an_error_and_not_a_last_page(
    relay: Relay, settings: Settings
) -> None:
    page = (
        b'{"resourceType":"Bundle","link":[{"relation":"next","url":"http://evil.example/r4/X"}]}'
    )
    result, _ = await read_from(settings, responses(page), "Observation")
    assert isinstance(result, UnusableResponse)
    assert "evil" not in str(result)


async def test_other_links_that_lead_elsewhere_are_left_out(
    relay: Relay, settings: Settings
) -> None:
    links = [
        {"relation": "self", "url": "http://evil.example/r4/Observation"},
        {"relation": "previous", "url": "{here}/r4/Observation/1"},
        {"relation": "first"},
        {"relation": "last", "url": 1},
        {"relation": "canary", "url": "{here}/r4/Observation"},
        {"relation": ["next"], "url": "{here}/r4/Observation"},
        {"relation": "prev", "url": "{here}/r4/Observation?_skip=0", "canary": 1},
    ]
    page = orjson.dumps({"resourceType": "Bundle", "link": links})
    result, _ = await read_from(settings, responses(page), "Observation")
    assert isinstance(result, bytes)
    assert orjson.loads(result)["link"] == [
        {"relation": "prev", "url": "/here/R4/Observation?_skip=0"}
    ]


async def test_a_bundle_that_was_stored_is_data_and_keeps_its_links(
    relay: Relay, settings: Settings
) -> None:
    body = (
        b'{"resourceType":"Bundle","link":[{"relation":"next","url":"http://elsewhere.example"}]}'
    )
    result, _ = await read_from(settings, responses(body), "Bundle/1")
    assert result == body


@pytest.mark.parametrize(
    ("query", "on_the_wire"),
    [
        ("identifier=urn:x|1", "identifier=urn:x%7C1"),
        ("name=a%26_id%3D1", "name=a%26_id%3D1"),
        ("name=a%2Bb", "name=a%2Bb"),
        ("name=a+b", "name=a%20b"),
        ("name=%25", "name=%25"),
        ("name=%2523", "name=%2523"),
        ("name=a%23b", "name=a%23b"),
        ("name=%C3%BC", "name=%C3%BC"),
        ("name=%5C..%5C", "name=%5C..%5C"),
        ("name=../../x?y@z", "name=../../x?y@z"),
    ],
)
async def test_a_query_means_the_same_on_the_wire(
    relay: Relay, settings: Settings, query: str, on_the_wire: str
) -> None:
    page = b'{"resourceType":"Bundle"}'
    result, lines = await read_from(settings, responses(page), "Patient/p.1-_/$everything", query)
    assert result == page
    assert lines == [f"GET /r4/Patient/p.1-_/$everything?{on_the_wire} HTTP/1.1"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html>sign in</html>", {"Content-Type": "text/html"}),
        (b'{"resourceType":"Observation"}', {"Content-Type": "text/plain"}),
        (b'{"error":"server_error"}', {}),
        (b'{"resourceType":"Patient"}', {}),
        (b'{"resourceType":1}', {}),
        (b'["Observation"]', {}),
        (b'{"resourceType":"Observation","x":"\xff"}', {}),
        (b'{"resourceType":"Observation","x":' + b"[" * 5000 + b"]" * 5000 + b"}", {}),
        (b'{"resourceType":"Observation"', {}),
        (b"", {}),
    ],
)
async def test_a_response_that_is_not_the_resource_is_not_passed_on(
    relay: Relay, settings: Settings, body: bytes, headers: dict[str, str]
) -> None:
    result, _ = await read_from(settings, responses(body, headers=headers), "Observation/1")
    assert isinstance(result, UnusableResponse)


@pytest.mark.parametrize("links", [b'"next"', b'{"relation":"next"}', b"[1]", b"null"])
async def test_a_page_with_links_that_are_none_is_not_passed_on(
    relay: Relay, settings: Settings, links: bytes
) -> None:
    page = b'{"resourceType":"Bundle","link":' + links + b"}"
    result, _ = await read_from(settings, responses(page), "Observation")
    assert isinstance(result, UnusableResponse)


@pytest.mark.parametrize(("path", "advice"), [("Observation", "_count"), ("Binary/1", "Raise")])
async def test_a_response_over_the_limit_is_not_read_to_its_end(
    relay: Relay, settings: Settings, path: str, advice: str
) -> None:
    sent = 0

    async def endless(connection: Connection) -> None:
        nonlocal sent
        await connection.read()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
        while sent < 64 * 1024 * 1024:
            await connection.send(b" " * 65536)
            sent += 65536

    result, _ = await read_from(settings, endless, path, max_read_back_bytes=100_000)
    assert isinstance(result, UnusableResponse)
    assert "100000" in str(result)
    assert advice in str(result)
    assert sent < 64 * 1024 * 1024


async def test_a_response_of_exactly_the_limit_is_passed_on(
    relay: Relay, settings: Settings
) -> None:
    body = b'{"resourceType":"Binary"}'.ljust(5000)
    result, _ = await read_from(settings, responses(body), "Binary/1", max_read_back_bytes=5000)
    assert result == body


async def test_a_read_that_takes_too_long_times_out(relay: Relay, settings: Settings) -> None:
    async def stall(connection: Connection) -> None:
        await connection.read()
        await asyncio.Event().wait()

    before = time.monotonic()
    result, lines = await read_from(settings, stall, "Observation/1", read_back_seconds=0.3)
    assert isinstance(result, UpstreamTimedOut)
    assert len(lines) == 1
    assert time.monotonic() - before < 30


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 400}, InvalidRead),
        ({"kind": "status", "status": 405}, InvalidRead),
        ({"kind": "status", "status": 414}, InvalidRead),
        ({"kind": "status", "status": 422}, InvalidRead),
        ({"kind": "status", "status": 404}, NotFound),
        ({"kind": "status", "status": 410}, NotFound),
        ({"kind": "status", "status": 401}, UnusableResponse),
        ({"kind": "status", "status": 403}, UnusableResponse),
        ({"kind": "status", "status": 302}, UnusableResponse),
        ({"kind": "status", "status": 204}, UnusableResponse),
        ({"kind": "status", "status": 418}, UnusableResponse),
        ({"kind": "status", "status": 500}, UnusableResponse),
        ({"kind": "status", "status": 503}, UnusableResponse),
        ({"kind": "status", "status": 408}, UpstreamTimedOut),
        ({"kind": "status", "status": 504}, UpstreamTimedOut),
        ({"kind": "status", "status": 425}, UpstreamUnavailable),
        ({"kind": "too_many_requests", "retry_after": 7}, UpstreamUnavailable),
        ({"kind": "html"}, UnusableResponse),
        ({"kind": "error_body"}, UnusableResponse),
        ({"kind": "cut"}, UnusableResponse),
        ({"kind": "reset"}, UnusableResponse),
        ({"kind": "half_answer"}, UnusableResponse),
    ],
)
async def test_each_failure_upstream_has_its_error(
    relay: Relay, upstream: SandboxServer, fault: dict[str, Any], error: type[UpliftError]
) -> None:
    await factories.user(relay)
    await delivered(relay)
    upstream.faults({**fault, "match": _READ})
    with pytest.raises(error) as failed:
        await read(relay, "Observation/obs-1")
    assert type(failed.value) is error
    if fault["kind"] == "too_many_requests":
        assert isinstance(failed.value, UpstreamUnavailable)
        assert failed.value.retry_after == 7
    upstream.clear_faults()
    assert orjson.loads(await read(relay, "Observation/obs-1"))["id"] == "obs-1"


async def test_a_refusal_shows_fhirs_codes_and_no_text_of_1uphealth(
    relay: Relay, settings: Settings
) -> None:
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [
            {"severity": "error", "code": "not-supported", "details": {"text": "canary"}},
            {"severity": "error", "code": "canary", "diagnostics": "canary"},
            {"severity": "error", "code": ["invalid"]},
            {"severity": "error", "code": "invalid", "expression": ["canary"]},
            "canary",
        ],
    }
    result, _ = await read_from(settings, responses(orjson.dumps(outcome), 400), "Observation")
    assert isinstance(result, InvalidRead)
    assert "http_400, not-supported, invalid" in str(result)
    assert "canary" not in str(result)


async def test_a_token_that_ended_early_is_renewed_once(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    await delivered(relay)
    upstream.faults({"kind": "expire_tokens"})
    assert orjson.loads(await read(relay, "Observation/obs-1"))["id"] == "obs-1"
    refreshes = [each for each in upstream.requests(api="token") if each["status"] == 200]
    assert len(refreshes) == 2  # the code's exchange, and this one
    assert [each["status"] for each in upstream.requests(api="fhir")][-2:] == [401, 200]


async def test_after_a_second_401_there_is_no_third_request(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    upstream.faults({"kind": "status", "status": 401, "match": _READ})
    with pytest.raises(UnusableResponse):
        await read(relay, "Observation/obs-1")
    assert len(upstream.requests(api="fhir")) == 2
    assert len(upstream.requests(api="token")) == 2


async def test_a_person_who_ended_consent_has_to_authorise_again(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    upstream.faults({"kind": "end_consent"})
    with pytest.raises(Conflict, match="authorise again"):
        await read(relay, "Observation/obs-1")
    asked = len(upstream.requests())
    with pytest.raises(Conflict, match="authorise again"):
        await read(relay, "Observation/obs-1")
    assert len(upstream.requests()) == asked


async def test_a_token_endpoint_that_is_away_means_try_later(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    upstream.faults(
        {"kind": "expire_tokens"}, {"kind": "status", "status": 503, "match": {"api": "token"}}
    )
    with pytest.raises(UpstreamUnavailable, match="no token"):
        await read(relay, "Observation/obs-1")


async def test_each_user_reads_with_their_own_token(relay: Relay, upstream: SandboxServer) -> None:
    await factories.user(relay, "alice")
    bob = await factories.user(relay, "bob")
    await delivered(relay)
    with pytest.raises(NotFound):
        await read(relay, "Observation/obs-1", user="bob")
    assert orjson.loads(await read(relay, "Observation", user="bob"))["total"] == 0
    assert {each["user"] for each in upstream.requests(api="fhir")[1:]} == {bob.oneup_user_id}


async def test_an_unknown_user_is_not_found_and_nothing_is_asked(
    relay: Relay, upstream: SandboxServer
) -> None:
    with pytest.raises(NotFound, match="no such user"):
        await read(relay, "Observation/obs-1", user="nobody")
    assert upstream.requests() == []


async def test_who_reads_is_in_the_trail_even_if_nothing_comes_back(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    upstream.faults({"kind": "status", "status": 500, "match": _READ})
    with pytest.raises(UnusableResponse):
        await read(relay, "Observation/obs-1")
    upstream.clear_faults()
    await read(relay, "Observation")
    async with relay.database.transaction() as connection:
        user = await find_user(connection, "alice")
        assert user is not None
        events = await list_events(connection, user_id=user.id)
    reads = [event for event in events if event.action == Action.READ_BACK]
    assert [event.actor for event in reads] == [BY, BY]
