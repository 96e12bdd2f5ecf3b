import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from tests.uplift.sandbox.conftest import Client, observation
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer

Rule = dict[str, Any]


def eventually_stored(sandbox: SandboxServer, number: int, within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if sandbox.counts()["total"]["versions"] == number:
            return True
        time.sleep(0.02)
    return False


def refresh(client: Client) -> httpx.Response:
    config = client.sandbox.config
    form = {
        "client_id": config.client_id,
        "client_secret": config.client_secret,
        "grant_type": "refresh_token",
        "refresh_token": client.grant["refresh_token"],
    }
    return client.http.post("/oauth2/token", data=form)


def auth_code(client: Client) -> httpx.Response:
    config = client.sandbox.config
    headers = {"client_id": config.client_id, "client_secret": config.client_secret}
    path = "/user-management/v1/user/auth-code"
    return client.http.post(path, params={"oneup_user_id": client.user}, headers=headers)


def test_429_comes_without_retry_after(alice: Client) -> None:
    alice.sandbox.faults({"kind": "too_many_requests"})
    response = alice.create(observation())
    assert response.status_code == 429
    assert "retry-after" not in response.headers
    assert alice.sandbox.resources() == []


@pytest.mark.parametrize(
    ("retry_after", "sent"), [(7, "7"), (0.5, "0.5"), ("soon", "soon"), ("-1", "-1")]
)
def test_429_comes_with_retry_after(alice: Client, retry_after: float | str, sent: str) -> None:
    alice.sandbox.faults({"kind": "too_many_requests", "retry_after": retry_after})
    assert alice.create(observation()).headers["retry-after"] == sent


def test_429_comes_with_a_date(alice: Client) -> None:
    rule = {"kind": "too_many_requests", "retry_after": 60, "retry_after_form": "date"}
    alice.sandbox.faults(rule)
    date = parsedate_to_datetime(alice.create(observation()).headers["retry-after"])
    assert 50 < (date - datetime.now(UTC)).total_seconds() <= 60


def test_a_rate_limit_refuses_only_the_excess(alice: Client) -> None:
    alice.sandbox.faults({"kind": "rate_limit", "requests": 3, "per_seconds": 1, "retry_after": 1})
    responses = [alice.create(observation(f"o{number}")) for number in range(5)]
    assert [response.status_code for response in responses] == [201, 201, 201, 429, 429]
    assert responses[-1].headers["retry-after"] == "1"
    time.sleep(1.05)
    assert alice.create(observation("late")).status_code == 201


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"message": "Unauthorized"}),
        (403, {"message": "Forbidden"}),
        (503, {"message": "Service Unavailable"}),
        (500, {"error": "server_error", "error_description": "Internal server error"}),
    ],
)
@pytest.mark.parametrize("commit", [False, True])
def test_a_status_comes_before_or_after_the_commit(
    alice: Client, status: int, body: dict[str, str], commit: bool
) -> None:
    alice.sandbox.faults({"kind": "status", "status": status, "commit": commit})
    response = alice.create(observation())
    assert response.status_code == status
    assert response.json() == body
    assert alice.sandbox.counts()["total"]["versions"] == int(commit)


@pytest.mark.parametrize("status", [400, 404, 409, 410, 412, 413, 415, 422])
def test_a_refusal_has_its_text_in_the_details(alice: Client, status: int) -> None:
    alice.sandbox.faults({"kind": "status", "status": status})
    response = alice.create(observation())
    assert response.status_code == status
    assert response.json()["issue"][0]["details"]["text"]


def test_a_status_may_have_a_body_and_headers_of_its_own(alice: Client) -> None:
    rule = {
        "kind": "status",
        "status": 302,
        "body": "<p>moved</p>",
        "content_type": "text/html",
        "headers": {"Location": "https://login.example"},
    }
    alice.sandbox.faults(rule)
    response = alice.create(observation())
    assert response.status_code == 302
    assert response.headers["content-type"] == "text/html"
    assert response.headers["location"] == "https://login.example"
    alice.sandbox.faults({"kind": "status", "status": 200, "body": {"resourceType": "Other"}})
    assert alice.create(observation()).json() == {"resourceType": "Other"}


def test_html_comes_with_200(alice: Client) -> None:
    alice.sandbox.faults({"kind": "html"})
    response = alice.create(observation())
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert alice.sandbox.resources() == []


def test_an_error_comes_with_200(alice: Client) -> None:
    alice.sandbox.faults({"kind": "error_body", "error": "nope"})
    response = alice.create(observation())
    assert (response.status_code, response.json()) == (200, {"error": "nope"})


@pytest.mark.parametrize("commit_first", [False, True])
def test_slow_delays_the_commit_or_the_answer(alice: Client, commit_first: bool) -> None:
    alice.sandbox.faults({"kind": "slow", "seconds": 1, "commit_first": commit_first})
    started = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        alice.http.post("/r4/Observation", json=observation(), timeout=0.2)
    assert alice.sandbox.counts()["total"]["versions"] == int(commit_first)
    assert eventually_stored(alice.sandbox, 1)
    assert alice.create(observation("o2")).status_code == 201
    assert time.monotonic() - started >= 1.1


@pytest.mark.parametrize("kind", ["cut", "status"])
def test_a_late_commit_happens_after_the_answer(alice: Client, kind: str) -> None:
    rule: Rule = {"kind": kind, "commit_after": 1} | ({"status": 504} if kind == "status" else {})
    alice.sandbox.faults(rule)
    if kind == "cut":
        with pytest.raises(httpx.RemoteProtocolError):
            alice.create(observation())
    else:
        assert alice.create(observation()).status_code == 504
    assert alice.sandbox.counts()["total"]["versions"] == 0
    assert alice.sandbox.requests()[-1]["stored"] is None
    assert eventually_stored(alice.sandbox, 1)
    assert alice.sandbox.requests()[-1]["stored"] == "Observation/o1/_history/1"


def test_a_reset_forgets_late_commits_and_requests_that_wait(alice: Client) -> None:
    alice.sandbox.faults(
        {"kind": "status", "status": 504, "commit_after": 0.2, "count": 1},
        {"kind": "slow", "seconds": 0.2, "match": {"contains": "slow"}},
    )
    assert alice.create(observation("late")).status_code == 504
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(alice.create, observation("slow"))
        while len(alice.sandbox.requests()) < 2:
            pass
        alice.sandbox.reset()
        with pytest.raises(httpx.RemoteProtocolError):
            waiting.result()
    time.sleep(0.3)
    assert alice.sandbox.resources() == []


def test_the_index_lags_behind_a_write(alice: Client) -> None:
    alice.sandbox.faults({"kind": "index_lag", "seconds": 1})
    token = [{"system": "s", "value": "v"}]
    alice.create(observation(identifier=token))
    search = "/r4/Observation?identifier=s|v"
    assert alice.get(search).json()["total"] == 0
    assert alice.get("/r4/Observation?_id=o1").json()["total"] == 0
    assert alice.get("/r4/Observation/o1").status_code == 200
    time.sleep(1.05)
    assert alice.get(search).json()["total"] == 1


def test_the_index_of_a_sandbox_may_always_lag() -> None:
    with SandboxServer(SandboxConfig(index_lag_seconds=30)) as sandbox:
        bob = Client(sandbox, "bob")
        bob.create(observation())
        assert bob.get("/r4/Observation").json()["total"] == 0
        bob.close()


def test_while_the_index_lags_a_search_shows_the_version_before(alice: Client) -> None:
    alice.create(observation())
    alice.sandbox.faults({"kind": "index_lag", "seconds": 30})
    alice.create(observation(status="amended"))
    found = alice.get("/r4/Observation").json()["entry"]
    assert found[0]["resource"]["status"] == "final"


def test_expired_tokens_end_at_once_and_later_ones_live(alice: Client) -> None:
    bob = Client(alice.sandbox, "bob")
    alice.sandbox.faults({"kind": "expire_tokens", "user": "alice"})
    assert alice.create(observation()).status_code == 401
    assert bob.create(observation()).status_code == 201
    alice.sandbox.faults({"kind": "expire_tokens"})
    assert bob.create(observation()).status_code == 401
    fresh = refresh(bob).json()["access_token"]
    bob.http.headers["Authorization"] = f"Bearer {fresh}"
    assert bob.create(observation()).status_code == 201
    bob.close()


def test_a_refused_refresh_leaves_auth_code(alice: Client) -> None:
    bob = Client(alice.sandbox, "bob")
    alice.sandbox.faults({"kind": "refuse_refresh", "match": {"user": "alice"}})
    refused = refresh(alice)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert auth_code(alice).json()["success"] is True
    assert refresh(bob).status_code == 200
    alice.sandbox.clear_faults()
    assert refresh(alice).status_code == 200
    bob.close()


def test_ended_consent_refuses_everything_of_that_user(alice: Client) -> None:
    bob = Client(alice.sandbox, "bob")
    code = auth_code(alice).json()["code"]
    alice.sandbox.faults({"kind": "end_consent", "match": {"user": "alice"}})
    assert alice.create(observation()).status_code == 401
    assert refresh(alice).json()["error"] == "invalid_grant"
    assert auth_code(alice).json()["success"] is False
    config = alice.sandbox.config
    form = {"grant_type": "authorization_code", "code": code}
    form |= {"client_id": config.client_id, "client_secret": config.client_secret}
    assert alice.http.post("/oauth2/token", data=form).json()["error"] == "invalid_grant"
    assert bob.create(observation()).status_code == 201
    assert refresh(bob).status_code == 200
    bob.close()


def test_a_new_grant_is_consent_again(alice: Client) -> None:
    alice.sandbox.faults({"kind": "end_consent"})
    assert alice.create(observation()).status_code == 401
    alice.grant = alice.sandbox.grant("alice")
    assert alice.grant["oneup_user_id"] == alice.user
    alice.http.headers["Authorization"] = f"Bearer {alice.grant['access_token']}"
    assert alice.create(observation()).status_code == 201
    assert auth_code(alice).json()["success"] is True
    assert refresh(alice).status_code == 200


def test_a_fault_after_the_commit_of_a_refresh_loses_the_new_token(alice: Client) -> None:
    match = {"api": "token", "contains": "grant_type=refresh_token"}
    alice.sandbox.faults({"kind": "cut", "commit": True, "count": 1, "match": match})
    with pytest.raises(httpx.RemoteProtocolError):
        refresh(alice)
    assert refresh(alice).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "match",
    [
        {"api": "fhir"},
        {"method": "post"},
        {"version": "R4"},
        {"type": "Observation"},
        {"id": "o1"},
        {"user": "alice"},
        {"path": "*/Observation"},
        {"contains": '"final"'},
        {"method": "POST", "type": "Observation", "user": "alice"},
    ],
)
def test_a_rule_fires_for_what_it_matches(alice: Client, match: dict[str, str]) -> None:
    alice.sandbox.faults({"kind": "status", "status": 500, "match": match})
    assert alice.create(observation()).status_code == 500
    assert alice.sandbox.fault_rules()[0]["fired"] == 1


@pytest.mark.parametrize(
    "match",
    [
        {"api": "token"},
        {"method": "GET"},
        {"version": "dstu2"},
        {"type": "Condition"},
        {"id": "o2"},
        {"user": "bob"},
        {"path": "*/Condition"},
        {"contains": "amended"},
    ],
)
def test_a_rule_leaves_what_it_does_not_match(alice: Client, match: dict[str, str]) -> None:
    alice.sandbox.faults({"kind": "status", "status": 500, "match": match})
    assert alice.create(observation()).status_code == 201
    assert alice.sandbox.fault_rules()[0]["matched"] == 0


def test_a_rule_matches_a_user_by_the_id_of_1uphealth_and_an_id_in_the_path(alice: Client) -> None:
    alice.create(observation())
    alice.sandbox.faults(
        {"kind": "status", "status": 500, "match": {"user": alice.user, "id": "o1"}}
    )
    assert alice.get("/r4/Observation/o1").status_code == 500


def test_a_rule_skips_and_counts(alice: Client) -> None:
    alice.sandbox.faults({"kind": "status", "status": 500, "skip": 1, "count": 2})
    statuses = [alice.create(observation(f"o{number}")).status_code for number in range(5)]
    assert statuses == [201, 500, 500, 201, 201]


def test_a_probability_is_repeatable_by_its_seed(alice: Client) -> None:
    def run(seed: int) -> list[int]:
        alice.sandbox.faults({"kind": "status", "status": 500, "probability": 0.5, "seed": seed})
        return [alice.get("/r4/Observation").status_code for _ in range(40)]

    first = run(1)
    assert set(first) == {200, 500}
    assert run(1) == first
    assert run(2) != first


def test_the_first_ending_rule_decides_and_slowness_adds_up(alice: Client) -> None:
    alice.sandbox.faults(
        {"kind": "slow", "seconds": 0.1},
        {"kind": "slow", "seconds": 0.1},
        {"kind": "status", "status": 503, "count": 1},
        {"kind": "html"},
    )
    started = time.monotonic()
    assert alice.create(observation()).status_code == 503
    assert time.monotonic() - started >= 0.2
    assert alice.create(observation()).headers["content-type"].startswith("text/html")
    assert [rule["fired"] for rule in alice.sandbox.fault_rules()] == [2, 2, 1, 1]


def test_faults_reach_user_management(alice: Client) -> None:
    alice.sandbox.faults({"kind": "status", "status": 503, "match": {"api": "user-management"}})
    assert auth_code(alice).status_code == 503
    assert refresh(alice).status_code == 200
