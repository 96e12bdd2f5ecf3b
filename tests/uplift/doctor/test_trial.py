"""What a test Patient shows at servers of each kind, and that nothing is left of it."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from uplift.doctor import servers
from uplift.doctor.findings import Finding, Verdict, worst
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.servers.profiles import PROFILES
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL
UNSEEN = "what others change is not seen"
BACK = "what others delete comes back"


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, SandboxServer]]:
    started: dict[str, SandboxServer] = {}
    yield started
    for server in started.values():
        server.stop()


def served(running: dict[str, SandboxServer], like: str) -> SandboxServer:
    if like not in running:
        running[like] = SandboxServer(SandboxConfig(like=like, auth="client_credentials"))
        running[like].start()
    running[like].reset()
    return running[like]


def at(settings: Settings, server: SandboxServer, like: str, **changed: object) -> Settings:
    given = {
        "destination": like,
        "destination_r4": f"{server.url}/r4",
        "destination_login": "client_credentials",
        "destination_token_url": server.token_url,
        "destination_client_id": server.config.client_id,
        "destination_client_secret": SecretStr(server.config.client_secret),
        "oneup_client_id": "",
    }
    return settings.model_copy(update=given | changed)


def lines(found: list[Finding], verdict: Verdict) -> str:
    return "\n".join(each.what for each in found if each.verdict is verdict)


@pytest.mark.parametrize("like", sorted(PROFILES))
async def test_each_kind_of_server_keeps_what_its_page_promises(
    settings: Settings, running: dict[str, SandboxServer], like: str
) -> None:
    server = served(running, like)
    found = await servers.ask(at(settings, server, like), write=True)
    said = lines(found, OK)
    assert worst(found) is not FAIL
    assert "and once where it comes twice" in said
    assert "it is deleted" in said
    warned = lines(found, WARN)
    assert (UNSEEN in warned) is (like == "medplum")
    assert (BACK in warned) is (like == "medplum")
    assert "is not declared" not in warned, "what the test Patient proves is there"
    left = [each for each in server.resources(type="Patient") if not _is_deleted(server, each)]
    assert left == []


def _is_deleted(server: SandboxServer, resource: dict[str, object]) -> bool:
    versions = resource["versions"]
    assert isinstance(versions, list)
    return bool(versions[-1]["interaction"] == "delete")


async def test_without_being_asked_nothing_is_written(
    settings: Settings, running: dict[str, SandboxServer]
) -> None:
    server = served(running, "hapi")
    found = await servers.ask(at(settings, server, "hapi"))
    assert {each["method"] for each in server.requests(api="fhir")} == {"GET"}
    assert "updateCreate is not declared" in lines(found, WARN)


@pytest.mark.parametrize(
    ("rule", "said", "verdict"),
    [
        ({"status": 403, "match": {"method": "PUT"}}, "it cannot be made (http_403)", FAIL),
        ({"status": 405, "match": {"method": "PUT"}}, "it cannot be made (http_405)", FAIL),
        ({"status": 415, "match": {"method": "PUT"}}, "it cannot be made (http_415)", FAIL),
        ({"status": 403, "match": {"method": "DELETE"}}, "cannot be deleted (http_403)", WARN),
        (
            {"status": 403, "match": {"method": "GET", "type": "Patient"}},
            "what was written cannot be read",
            FAIL,
        ),
    ],
)
async def test_each_right_that_lacks_is_told(
    settings: Settings,
    running: dict[str, SandboxServer],
    rule: dict[str, object],
    said: str,
    verdict: Verdict,
) -> None:
    server = served(running, "azure")
    server.faults({"kind": "status", **rule})
    found = await servers.ask(at(settings, server, "azure"), write=True)
    (finding,) = [each for each in found if said in each.what]
    assert (finding.verdict, worst(found)) == (verdict, verdict)
    assert finding.do


async def test_a_server_that_chooses_ids_needs_another_mode(
    settings: Settings, running: dict[str, SandboxServer]
) -> None:
    server = served(running, "medplum")
    found = await servers.ask(at(settings, server, "medplum", destination_mode="put"), write=True)
    (finding,) = [each for each in found if each.verdict is FAIL]
    assert "set mode to upsert" in (finding.do or "")
