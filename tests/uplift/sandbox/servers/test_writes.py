"""What no single exchange shows: faults, the control API, the journal."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.servers.searches import SearchCache
from uplift.sandbox.store import Store
from uplift.sandbox.testing import SandboxServer

KEY = "7" * 64


def put(client: httpx.Client, born: str, **headers: str) -> httpx.Response:
    body = {"resourceType": "Patient", "id": "alice", "birthDate": born}
    return client.put("Patient/alice", json=body, headers=headers)


def wait_for(client: httpx.Client, born: str) -> dict[str, Any]:
    """The Patient once it is born then, within 5 s."""
    limit = time.monotonic() + 5
    while (found := client.get("Patient/alice").json()).get("birthDate") != born:
        assert time.monotonic() < limit, found
        time.sleep(0.02)
    return dict(found)


def test_an_older_put_that_commits_late_wins(sandbox: SandboxServer, r4: httpx.Client) -> None:
    sandbox.faults({"kind": "cut", "commit_after": 0.3, "count": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        put(r4, "1970")
    assert put(r4, "1980").status_code == 201
    assert wait_for(r4, "1970")["meta"]["versionId"] == "2"


def test_a_precondition_keeps_a_late_commit_out(sandbox: SandboxServer, r4: httpx.Client) -> None:
    put(r4, "1970")
    sandbox.faults({"kind": "status", "status": 504, "commit_after": 0.1, "count": 1})
    assert put(r4, "1980", **{"If-Match": 'W/"1"'}).status_code == 504
    assert put(r4, "1990", **{"If-Match": 'W/"1"'}).status_code == 200
    sandbox.faults({"kind": "slow", "seconds": 0.3})
    assert r4.get("Patient/alice").json()["birthDate"] == "1990"


def test_a_lock_conflict_stores_nothing(sandbox: SandboxServer, r4: httpx.Client) -> None:
    sandbox.faults({"kind": "lock_conflict", "match": {"method": "PUT"}, "count": 1})
    refused = put(r4, "1970")
    assert refused.status_code == 409
    assert "HAPI-0823" in refused.json()["issue"][0]["diagnostics"]
    assert r4.get("Patient/alice").status_code == 404
    assert put(r4, "1970").status_code == 201


def test_the_control_api_shows_each_version_as_it_came(
    sandbox: SandboxServer, r4: httpx.Client
) -> None:
    sent = [put(r4, born).request.content for born in ("1970", "1980")]
    assert sandbox.stored_bytes(type="Patient") == sent
    assert sandbox.counts(version="r4")["total"]["duplicates"] == 0
    put(r4, "1970")
    assert sandbox.counts()["total"]["duplicate_versions"] == 1
    assert [entry["stored"] for entry in sandbox.requests(api="fhir")] == [
        f"Patient/alice/_history/{number}" for number in (1, 2, 3)
    ]


@pytest.fixture
def journal(tmp_path: Path) -> SandboxConfig:
    return SandboxConfig(like="hapi", state_file=tmp_path / "state", state_key=KEY)


def test_deletions_and_sources_outlive_the_process(journal: SandboxConfig) -> None:
    with SandboxServer(journal) as first, httpx.Client(base_url=f"{first.url}/r4") as client:
        stored = put(client, "1970").json()
        client.put("Patient/bob", json={"resourceType": "Patient", "id": "bob"})
        client.delete("Patient/bob")
    with SandboxServer(journal) as again, httpx.Client(base_url=f"{again.url}/r4") as client:
        assert client.get("Patient/alice").json()["meta"]["source"] == stored["meta"]["source"]
        assert client.get("Patient/bob").status_code == 410


def test_a_kept_search_is_done_again_after_its_time() -> None:
    now = [100.0]
    cache, store = SearchCache(60.0, lambda: now[0]), Store()

    def total() -> int:
        shelf = store.shelf("", "r4", "Patient")
        return int(cache.search(shelf, [("_id", "alice")], "Patient", fresh=False)["total"])

    assert total() == 0
    store.put(
        user="",
        version="r4",
        resource={"resourceType": "Patient"},
        received=b"{}",
        id_="alice",
        update=True,
        request=1,
    )
    now[0] = 159.0
    assert total() == 0
    now[0] = 161.0
    assert total() == 1
