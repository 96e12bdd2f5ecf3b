import hashlib
import json

import httpx
import pytest

from tests.uplift.sandbox.conftest import Client, observation
from uplift.sandbox.testing import SandboxServer


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"{}",
        b'[{"kind": "none"}]',
        b'[{"kind": "status"}]',
        b'[{"kind": "cut", "unknown": 1}]',
        b'[{"kind": "cut", "match": {"colour": "red"}}]',
        b'[{"kind": "cut", "probability": 2}]',
    ],
)
def test_a_rule_that_cannot_be_read_changes_nothing(sandbox: SandboxServer, body: bytes) -> None:
    sandbox.faults({"kind": "html"})
    url = f"{sandbox.url}/_sandbox/faults"
    response = httpx.put(url, content=body, headers=sandbox.headers, trust_env=False)
    assert response.status_code == 400
    assert response.json()["details"]
    assert [rule["kind"] for rule in sandbox.fault_rules()] == ["html"]


def test_the_helper_says_which_rule_was_refused(sandbox: SandboxServer) -> None:
    with pytest.raises(ValueError, match="kind"):
        sandbox.faults({"kind": "none"})


def test_put_replaces_post_adds_delete_clears(sandbox: SandboxServer) -> None:
    sandbox.faults({"kind": "html"}, {"kind": "cut", "count": 3})
    sandbox.faults({"kind": "cut", "count": 3})
    sandbox.add_faults({"kind": "stall"})
    assert sandbox.fault_rules() == [
        {"kind": "cut", "count": 3, "matched": 0, "fired": 0},
        {"kind": "stall", "matched": 0, "fired": 0},
    ]
    sandbox.clear_faults()
    assert sandbox.fault_rules() == []


def test_resources_are_listed_with_their_versions(alice: Client) -> None:
    alice.create(observation())
    alice.create(observation(status="amended"))
    alice.create({"resourceType": "Condition", "id": "c"}, "dstu2")
    condition, found = sorted(alice.sandbox.resources(), key=lambda one: str(one["type"]))
    assert (condition["version"], condition["id"]) == ("dstu2", "c")
    assert (found["user"], found["app_user_id"], found["id"]) == (alice.user, "alice", "o1")
    first = found["versions"][0]
    sent = httpx.Request("POST", "http://x", json=observation()).content
    assert first["sha256"] == hashlib.sha256(sent).hexdigest()
    assert first["size"] == len(sent)
    assert first["request"] == 1
    assert "bytes" not in first


def test_resources_are_filtered(alice: Client) -> None:
    bob = Client(alice.sandbox, "bob")
    alice.create(observation("a"))
    bob.create(observation("b"))
    bob.create(observation("b3"), "stu3")
    bob.create({"resourceType": "Condition", "id": "c"})
    bob.close()

    def ids(**filters: str) -> set[str]:
        return {one["id"] for one in alice.sandbox.resources(**filters)}

    assert ids() == {"a", "b", "b3", "c"}
    assert ids(user="bob") == ids(user=bob.user) == {"b", "b3", "c"}
    assert ids(version="stu3") == {"b3"}
    assert ids(type="Condition") == {"c"}
    assert ids(user="bob", version="r4", type="Observation") == {"b"}
    assert ids(id="a") == {"a"}
    assert ids(user="nobody") == set()


def test_counts_tell_duplicates_from_changes(alice: Client) -> None:
    alice.create(observation("a", value=1))
    alice.create(observation("a", value=2))
    assert alice.sandbox.counts()["total"] == {
        "resources": 1,
        "versions": 2,
        "duplicate_resources": 0,
        "duplicate_versions": 0,
        "duplicates": 0,
    }
    alice.create(observation("a", value=1, meta={"tag": []}))
    alice.create(observation("b", value=2))
    alice.create(observation("b", value=2))
    alice.create(observation("b", value=2), "dstu2")
    counts = alice.sandbox.counts(version="r4")
    assert counts["total"]["duplicate_versions"] == 2
    assert counts["total"]["duplicate_resources"] == 1
    assert counts["total"]["duplicates"] == 3
    copies = [
        [one["copy"] for one in each["versions"]] for each in alice.sandbox.resources(version="r4")
    ]
    assert copies == [[None, None, "version"], ["resource", "version"]]
    assert alice.sandbox.counts()["total"]["duplicates"] == 3


def test_counts_are_by_user_version_and_type(alice: Client) -> None:
    bob = Client(alice.sandbox, "bob")
    for client in (alice, bob):
        client.create(observation())
    alice.create(observation(), "dstu2")
    bob.close()
    rows = alice.sandbox.counts()["by"]
    assert [
        (row["app_user_id"], row["version"], row["type"], row["resources"]) for row in rows
    ] == [
        ("alice", "r4", "Observation", 1),
        ("bob", "r4", "Observation", 1),
        ("alice", "dstu2", "Observation", 1),
    ]
    assert len(alice.sandbox.counts(user="alice")["by"]) == 2
    assert alice.sandbox.counts()["total"]["duplicates"] == 0


def test_the_log_tells_each_request(alice: Client) -> None:
    body = json.dumps(observation()).encode()
    headers = {"Content-Type": "application/json", "X-Request-ID": "r-1"}
    alice.http.post("/r4/Observation", content=body, headers=headers)
    alice.get("/r4/Observation?identifier=s|v")
    first, second = alice.sandbox.requests()
    assert first["number"] == 1
    assert (first["method"], first["path"], first["status"]) == ("POST", "/r4/Observation", 201)
    assert (first["version"], first["type"], first["id"]) == ("r4", "Observation", "o1")
    assert (first["user"], first["request_id"]) == (alice.user, "r-1")
    assert (first["size"], first["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert first["stored"] == "Observation/o1/_history/1"
    assert first["seconds"] >= 0
    assert second["query"] == "identifier=s|v"
    assert (second["sha256"], second["stored"]) == (None, None)
    assert alice.sandbox.requests(after=1) == [second]
    assert alice.sandbox.requests(api="token") == []


def test_the_log_holds_no_token_code_or_secret(alice: Client) -> None:
    config = alice.sandbox.config
    form = {
        "client_id": config.client_id,
        "client_secret": config.client_secret,
        "grant_type": "refresh_token",
        "refresh_token": alice.grant["refresh_token"],
    }
    alice.http.post("/oauth2/token", data=form)
    alice.http.post("/oauth2/token", params=form)
    params = {"app_user_id": "alice", "client_secret": config.client_secret}
    alice.http.post("/user-management/v1/user/auth-code", params=params)
    alice.create(observation())
    log = alice.sandbox.requests()
    assert [entry["grant_type"] for entry in log] == ["refresh_token", "refresh_token", None, None]
    text = json.dumps(log)
    for secret in (
        config.client_secret,
        alice.grant["refresh_token"],
        alice.grant["access_token"],
    ):
        assert secret not in text


def test_unknown_paths_are_logged_too(sandbox: SandboxServer) -> None:
    response = httpx.get(f"{sandbox.url}/v9/nowhere/at/all/really", trust_env=False)
    assert response.status_code == 404
    assert sandbox.requests()[-1]["api"] == "none"


def test_what_is_wrong_with_a_control_request_is_said(sandbox: SandboxServer) -> None:
    url = f"{sandbox.url}/_sandbox"
    with httpx.Client(base_url=url, headers=sandbox.headers, trust_env=False) as http:
        assert http.get("/requests?after=x").status_code == 400
        for body in (b"", b"[]", b"{}", b'{"app_user_id": ""}', b'{"app_user_id": 3}'):
            assert http.post("/grants", content=body).status_code == 400


def test_a_reset_forgets_everything(alice: Client) -> None:
    alice.create(observation())
    alice.sandbox.faults({"kind": "html"})
    alice.sandbox.reset()
    assert alice.sandbox.resources() == []
    assert alice.sandbox.requests() == []
    assert alice.sandbox.fault_rules() == []
    assert alice.create(observation()).status_code == 401
    assert httpx.get(f"{alice.sandbox.url}/_sandbox/health", trust_env=False).status_code == 200
