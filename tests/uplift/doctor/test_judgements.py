"""What the doctor says about given facts. Pure, so tables test it."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy.exc import OperationalError

from uplift.delivery.rate_limiter import RateLimiterState
from uplift.doctor import configuration, findings, keys, ledger, processes, queues, upstream, work
from uplift.doctor.findings import Finding, Verdict
from uplift.doctor.upstream import Reply
from uplift.key_check import KeyUse
from uplift.ledger.backlog import Backlog, Overdue, Waiting
from uplift.ledger.processes import Seen
from uplift.ledger.revisions import Revisions
from uplift.ledger.roles import Rights
from uplift.ledger.server import ServerFacts
from uplift.ledger.set_aside import FhirType
from uplift.sealing import KeyRing
from uplift.settings import Settings

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL


def verdicts(found: list[Finding]) -> list[Verdict]:
    return [finding.verdict for finding in found]


@pytest.mark.parametrize(
    ("found", "expected"),
    [([], OK), ([OK, OK], OK), ([OK, WARN], WARN), ([FAIL, WARN, OK], FAIL)],
)
def test_the_most_serious_line_is_the_verdict(found: list[Verdict], expected: Verdict) -> None:
    assert findings.worst(Finding("x", verdict, "") for verdict in found) is expected


def whole(**changed: Any) -> Settings:
    return Settings.model_validate(
        {
            "database_url": "postgresql://u:canary@127.0.0.1/x",
            "redis_url": "redis://:canary@127.0.0.1/0",
            "master_keys": "k:canary",
            "oneup_client_id": "client",
            "oneup_client_secret": "canary",
            **changed,
        }
    )


@pytest.mark.parametrize(
    ("changed", "verdict", "said"),
    [
        ({}, OK, "complete"),
        ({"database_url": None}, FAIL, "UPLIFT_DATABASE_URL is not set"),
        ({"redis_url": None}, FAIL, "UPLIFT_REDIS_URL is not set"),
        ({"master_keys": None}, FAIL, "UPLIFT_MASTER_KEYS is not set"),
        ({"database_url": "canary"}, FAIL, "UPLIFT_DATABASE_URL is not an address"),
        ({"database_url": "postgresql://u:canary@h:canary/x"}, FAIL, "is not an address"),
        ({"oneup_client_id": ""}, FAIL, "UPLIFT_ONEUP_CLIENT_ID is not set"),
        ({"oneup_client_secret": ""}, FAIL, "UPLIFT_ONEUP_CLIENT_SECRET is not set"),
        ({"oneup_client_secret": "canary\n"}, FAIL, "CLIENT_SECRET is not visible ASCII"),
        ({"oneup_fhir_url": "api.1up.health"}, FAIL, "UPLIFT_ONEUP_FHIR_URL is not an address"),
        ({"oneup_token_url": "https://"}, FAIL, "UPLIFT_ONEUP_TOKEN_URL is not an address"),
        ({"oneup_users_url": "http://192.0.2.1/u"}, WARN, "UPLIFT_ONEUP_USERS_URL is not https"),
        ({"oneup_users_url": "http://127.0.0.1:8090/u"}, OK, "complete"),
        ({"oneup_users_url": "http://localhost/u"}, OK, "complete"),
        ({"tolerance_overrides": "obs-6=error,id_too_long=warning"}, OK, "complete"),
        ({"tolerance_overrides": "obs-6=error,canary=error"}, FAIL, "OVERRIDES: entry 2 is not"),
    ],
)
def test_settings(changed: dict[str, Any], verdict: Verdict, said: str) -> None:
    (found,) = configuration.judge_settings(whole(**changed))
    assert found.verdict is verdict
    assert said in found.what
    assert "canary" not in f"{found}"
    assert (found.do is None) == (verdict is OK)


def test_settings_that_are_refused_are_named_without_their_values() -> None:
    with pytest.raises(ValidationError) as caught:
        whole(api_port="canary", lease_seconds=-1)
    found = configuration.refused(caught.value)
    assert [finding.what.partition(":")[0] for finding in found] == [
        "UPLIFT_API_PORT",
        "UPLIFT_LEASE_SECONDS",
    ]
    assert verdicts(found) == [FAIL, FAIL]
    assert "canary" not in f"{found}"


_KEY_RING = KeyRing.parse(f"{KeyRing.new_entry('new')},{KeyRing.new_entry('old')}")


@pytest.mark.parametrize(
    ("users", "missing", "different", "expected"),
    [
        ({"new": 9}, [], [], [(OK, "new: in use, 9"), (OK, "old: wraps 0")]),
        ({"new": 4, "old": 5}, [], [], [(OK, "new: in use, 4"), (WARN, "old: still wraps 5")]),
        ({}, [], [], [(OK, "new: in use, 0"), (OK, "old: wraps 0")]),
        (
            {"new": 4, "old": 5},
            [],
            ["old"],
            [(OK, "new: in use, 4"), (FAIL, "old: a different key")],
        ),
        (
            {"new": 4, "gone": 2},
            ["gone"],
            ["new"],
            [
                (FAIL, "new: a different key"),
                (OK, "old: wraps 0"),
                (FAIL, "gone: not on the key ring, but wraps 2"),
            ],
        ),
    ],
)
def test_keys(
    users: dict[str, int],
    missing: list[str],
    different: list[str],
    expected: list[tuple[Verdict, str]],
) -> None:
    found = keys.judge_keys(_KEY_RING, KeyUse(users, frozenset(missing), frozenset(different)))
    assert verdicts(found) == [verdict for verdict, _ in expected]
    for finding, (_, said) in zip(found, expected, strict=True):
        assert said in finding.what


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [OK]),
        ({"version": 150000}, [OK]),
        ({"version": 140019}, [FAIL]),
        ({"synchronous_commit": "off"}, [OK, FAIL]),
        ({"synchronous_commit": "remote_apply"}, [OK]),
        ({"fsync": False}, [OK, FAIL]),
    ],
)
def test_postgres(changed: dict[str, Any], expected: list[Verdict]) -> None:
    facts = ServerFacts(
        **{
            "version": 180004,
            "version_text": "18.4",
            "fsync": True,
            "synchronous_commit": "on",
            "clock": 0.0,
            **changed,
        }
    )
    assert verdicts(ledger.judge_server(facts)) == expected


def test_a_ledger_that_is_not_migrated_or_too_new() -> None:
    for at in ("0002", "0003"):
        assert ledger.judge_revision(Revisions(at, "0001", "0002")).verdict is OK
    problems: tuple[tuple[str | None, str | None, str], ...] = (
        (None, None, "Run `uplift migrate`."),
        ("0001", "0001", "Run `uplift migrate`."),
        ("0003", "0003", "Deploy the newer version."),
        ("0003", None, "Deploy the newer version."),
    )
    for revision, oldest, do in problems:
        found = ledger.judge_revision(Revisions(revision, oldest, "0002"))
        assert (found.verdict, found.do) == (FAIL, do)


@pytest.mark.parametrize(
    ("skew", "verdict", "said"),
    [
        (0.0, OK, "agree"),
        (-4.9, OK, "agree"),
        (61.0, FAIL, "61 s ahead of"),
        (-6, WARN, "6 s behind"),
    ],
)
def test_clocks(skew: float, verdict: Verdict, said: str) -> None:
    found = ledger.judge_clock(skew)
    assert found.verdict is verdict
    assert said in found.what


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Overdue(0, 0.0, 0, 0.0), [OK]),
        (Overdue(500, 30.0, 3, 2.0), [OK]),
        (Overdue(500, 61.0, 0, 0.0), [WARN]),
        (Overdue(500, 4000.0, 0, 0.0), [FAIL]),
        (Overdue(0, 0.0, 3, 61.0), [FAIL, OK]),
    ],
)
def test_work(facts: Overdue, expected: list[Verdict]) -> None:
    assert verdicts(work.judge_work(facts)) == expected


def backlog_of(uploads: int, *, all_paused: bool = False, users: int = 0) -> Backlog:
    waiting = Waiting(
        queue="uploads", state="queued", reason="new", uploads=uploads, due=0, due_seconds=0.0
    )
    return Backlog(
        waiting=(waiting,), users_parked=users, all_paused=all_paused, users_paused=users
    )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (backlog_of(0), [OK]),
        (backlog_of(80), [OK]),
        (backlog_of(81), [WARN]),
        (backlog_of(100), [FAIL]),
        (backlog_of(0, all_paused=True), [OK, WARN]),
        (backlog_of(0, users=3), [OK, WARN, OK]),
    ],
)
def test_the_backlog(facts: Backlog, expected: list[Verdict]) -> None:
    assert verdicts(work.judge_backlog(facts, 100)) == expected


@pytest.mark.parametrize(
    ("state", "verdict", "said"),
    [
        (None, WARN, "unknown: Redis is not reachable"),
        (RateLimiterState("full", 5000.0, 0.0, 0.0), OK, "5000 attempts"),
        (RateLimiterState("throttled", 12.0, 0.0, 0.0), OK, "throttled: up to 12"),
        (RateLimiterState("suspended", 12.0, 30.0, 0.0), WARN, "suspended for 30 s"),
        (RateLimiterState("probing", 0.2, 4.0, 60.0), WARN, "only one upload is tried"),
    ],
)
def test_the_rate_limiter(state: RateLimiterState | None, verdict: Verdict, said: str) -> None:
    found = work.judge_rate_limiter(state)
    assert found.verdict is verdict
    assert said in found.what


def test_types_that_the_destination_lacks_are_named() -> None:
    assert work.judge_types([]).verdict is OK
    found = work.judge_types([FhirType("R4", "Observation"), FhirType("DSTU2", "Condition")])
    assert found.verdict is WARN
    assert "DSTU2 Condition, R4 Observation" in found.what


@pytest.mark.parametrize(("days", "verdict"), [(0.0, OK), (1.9, OK), (2.1, WARN)])
def test_retention(days: float, verdict: Verdict) -> None:
    assert work.judge_retention(days * 86_400).verdict is verdict


_REDIS = {
    "redis_version": "7.2.4",
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "used_memory": 90,
    "maxmemory": 0,
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [OK, OK, OK]),
        ({"valkey_version": "9.0.1"}, [OK, OK, OK]),
        ({"redis_version": "6.2.14"}, [FAIL, OK, OK]),
        ({"redis_version": "10.0.0"}, [OK, OK, OK]),
        ({"maxmemory_policy": "allkeys-lru"}, [OK, FAIL, OK]),
        ({"aof_enabled": 0}, [OK, OK, WARN]),
        ({"maxmemory": 100}, [OK, OK, OK, WARN]),
        ({"maxmemory": 1000}, [OK, OK, OK]),
    ],
)
def test_redis(changed: dict[str, Any], expected: list[Verdict]) -> None:
    assert verdicts(queues.judge_redis({**_REDIS, **changed})) == expected


def test_every_queue_needs_a_worker() -> None:
    found = queues.judge_consumers({"uploads": ["a", "b"], "bulk": []})
    assert verdicts(found) == [OK, FAIL]
    assert "2 worker(s)" in found[0].what
    assert "`bulk`" in (found[1].do or "")


def test_a_beat_that_does_not_sweep_fails() -> None:
    assert verdicts([queues.judge_sweeps(swept=True), queues.judge_sweeps(swept=False)]) == [
        OK,
        FAIL,
    ]


@pytest.mark.parametrize(
    "replies",
    [
        None,
        "garbage",
        [None, 1, "garbage", []],
        [{"worker@a": None}, {"worker@a": {"error": "…"}}, {"worker@a": [1, None, [], {}]}],
        [{"worker@a": [{"name": 1}, {"name": "foreign"}]}],
        [{"w" * 1000: [{"name": "uploads"}]}],
    ],
)
def test_what_is_no_reply_of_a_worker_is_left_out(replies: object) -> None:
    """Whoever reaches Redis can reply."""
    assert queues.consumers_in(replies) == {}
    if isinstance(replies, list):
        known = {"uploads@host": [{"name": "uploads", "exchange": {}}]}
        assert queues.consumers_in([*replies, known]) == {"uploads": ["uploads@host"]}


def test_workers_of_one_name_are_a_finding_and_one_with_two_queues_is_not() -> None:
    found = queues.judge_consumers({"uploads": ["a", "a", "b"], "bulk": ["b"]})
    assert verdicts(found) == [OK, OK, WARN]
    assert "3 worker(s)" in found[0].what
    assert "have the name a" in found[2].what


@pytest.mark.parametrize(
    ("reply", "verdict", "said"),
    [
        (None, FAIL, "does not respond"),
        (Reply(400, "invalid_grant"), OK, "knows the client"),
        (Reply(401, "invalid_grant"), OK, "knows the client"),
        (Reply(401, "invalid_client"), FAIL, "does not accept the client"),
        (Reply(400, "invalid_client"), FAIL, "does not accept the client"),
        (Reply(401), FAIL, "does not accept the client"),
        (Reply(404), FAIL, "no token endpoint"),
        (Reply(302), FAIL, "no token endpoint"),
        (Reply(429), WARN, "busy"),
        (Reply(503), WARN, "says nothing"),
        (Reply(200), WARN, "says nothing"),
        (Reply(400, "server_error"), WARN, "says nothing"),
    ],
)
def test_the_token_endpoint(reply: Reply | None, verdict: Verdict, said: str) -> None:
    found = upstream.judge_token(reply, "auth.example")
    assert found.verdict is verdict
    assert said in found.what


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (None, FAIL),
        (Reply(200), OK),
        (Reply(401), OK),
        (Reply(403), OK),
        (Reply(404), WARN),
        (Reply(301), WARN),
        (Reply(502), WARN),
    ],
)
def test_the_fhir_api(reply: Reply | None, verdict: Verdict) -> None:
    assert upstream.judge_fhir(reply, "api.example").verdict is verdict


def test_only_a_line_that_is_ok_says_nothing_to_do() -> None:
    assert whole().master_keys == SecretStr("k:canary")
    for make, expected in ((findings.warn, WARN), (findings.fail, FAIL)):
        assert make("p", "w", "d") == Finding("p", expected, "w", "d")
    assert findings.ok("p", "w") == Finding("p", OK, "w", None)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ([], None),
        ([Seen("api", 0.5, False), Seen("worker", -29.0, False)], None),
        ([Seen("api", 0.0, True)], "api: 1 process(es) can open no more files"),
        ([Seen("worker", 86_400.0, False)], "worker: the clock of a machine is 86400 s ahead of"),
        ([Seen("bulk", -31.0, False)], "bulk: the clock of a machine is 31 s behind"),
    ],
)
def test_what_processes_lack_needs_a_person(seen: list[Seen], said: str | None) -> None:
    (found,) = processes.judge_processes(seen)
    assert found.verdict is (OK if said is None else FAIL)
    assert said is None or said in found.what


@pytest.mark.parametrize(
    ("info", "fails"),
    [
        ({}, False),
        ({"server_time_usec": 1_700_000_010_000_000}, False),
        ({"server_time_usec": 1_700_086_400_000_000}, True),
        ({"server_time_usec": 1_699_999_960_000_000}, True),
    ],
)
def test_the_clock_of_redis_is_compared_with_the_machines(
    info: dict[str, int], fails: bool
) -> None:
    assert bool(queues.judge_clock(info, 1_700_000_000.0)) is fails


class _Original(Exception):
    def __init__(self, sqlstate: str | None, words: str) -> None:
        super().__init__(words)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("sqlstate", "words", "said"),
    [
        ("25006", "", "is read-only"),
        (None, "session is read-only", "is read-only"),
        ("42501", "permission denied for table uploads", "does not permit this role"),
        ("57014", "canceling statement due to statement timeout", "takes too long"),
        ("53100", "No space left on device", "no space left"),
        ("53300", "", "has no connection left"),
        (None, 'FATAL: too many connections for role "uplift"', "has no connection left"),
        (None, 'FATAL: role "uplift" is not permitted to log in', "does not let this role"),
        (None, "connection refused", "does not work (OperationalError)"),
    ],
)
def test_what_a_server_refuses_is_told_by_its_cause(
    sqlstate: str | None, words: str, said: str
) -> None:
    error = OperationalError(None, None, _Original(sqlstate, words))
    finding = ledger.not_working(error, "here")
    assert finding.verdict is FAIL
    assert said in finding.what


@pytest.mark.parametrize(
    ("rights", "verdict"),
    [
        (Rights(may_write=True, lacking=()), OK),
        (Rights(may_write=False, lacking=("pauses", "uploads")), OK),
        (Rights(may_write=True, lacking=("uploads",)), FAIL),
    ],
)
def test_a_table_that_a_writing_role_may_not_write_fails(rights: Rights, verdict: Verdict) -> None:
    assert ledger.judge_role(rights).verdict is verdict
