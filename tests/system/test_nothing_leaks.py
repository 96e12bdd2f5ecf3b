"""Health data, names, tokens and keys are nowhere in the clear: not in Redis, logs or Flower."""

import base64
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from tests.factories import resource
from tests.ops.files import EXPRESSIONS
from tests.ops.promql import series
from tests.ops.test_compose import SERVICES
from tests.system.conftest import Running
from uplift.ledger.database import Database

_USER = "canaryperson"
_NOTE = "canarynote"
_ID = "canaryrecord"
_SOURCE = "canaryhospital"


@pytest.fixture(scope="module")
def canaries(running: Running) -> dict[str, str]:
    """Every secret of a system under way, with what to find it by; failures included."""
    running.add_user(_USER)
    device = running.api.post(f"/v1/users/{_USER}/device-tokens", json={"expiresIn": 600}).json()[
        "token"
    ]
    granted = running.sandbox.grant("canarybrought")
    running.api.put(
        "/v1/users/canarybrought/grant",
        json={
            "accessToken": granted["access_token"],
            "refreshToken": granted["refresh_token"],
            "expiresIn": 7200,
        },
    ).raise_for_status()
    faults: list[dict[str, Any]] = [
        {"kind": "status", "status": 500, "body": _NOTE, "count": 2},
        {"kind": "status", "status": 400, "body": _NOTE, "count": 2},
        {"kind": "cut", "count": 2},
        {"kind": "html", "count": 1},
        {"kind": "status", "status": 403, "body": _NOTE, "count": 1},
    ]
    running.sandbox.faults(
        *({**fault, "match": {"api": "fhir", "method": "POST"}} for fault in faults)
    )
    for number in range(20):
        body = resource(id=f"{_ID}-{number}", note=[{"text": _NOTE}])
        if number % 5 == 0:
            body["valueQuantity"] = {"value": _NOTE}  # rejected: its issues must not quote it
        for key in (running.key, device):
            running.api.post(
                "/v1/uploads",
                params={
                    "user": _USER,
                    "fhirVersion": "R4",
                    "source": _SOURCE,
                    "recordId": f"{_ID}-{number}",
                },
                content=orjson.dumps(body),
                headers={
                    "Content-Type": "application/fhir+json",
                    "Authorization": f"Bearer {key}",
                },
            ).raise_for_status()
    # Requests that fail must not be quoted either.
    running.api.post("/v1/uploads", content=f'{{"{_NOTE}": '.encode())
    running.api.get(f"/v1/uploads/{_NOTE}")
    running.api.get("/v1/uploads", headers={"Authorization": f"Bearer {_NOTE}"})
    time.sleep(3)
    environment = running.system.environment
    return {
        "user": _USER,
        "note": _NOTE,
        "record id": _ID,
        "source": _SOURCE,
        "api key": running.key,
        "device token": device,
        "access token": granted["access_token"],
        "refresh token": granted["refresh_token"],
        "client secret": environment["UPLIFT_ONEUP_CLIENT_SECRET"],
        "master key": environment["UPLIFT_MASTER_KEYS"].partition(":")[2],
        "flower's password": running.system.flower_login.partition(":")[2],
    }


def assert_clean(text_: bytes, canaries: dict[str, str], where: str) -> None:
    for name, canary in canaries.items():
        assert canary.encode() not in text_, f"the {name} is in {where}"


# First: another test restarts the worker, and counts start again at 0.
def test_metrics_hold_none_of_it_and_all_that_operators_look_at(
    running: Running, canaries: dict[str, str]
) -> None:
    urls = running.system.admin_urls
    pages = {
        name: httpx.get(f"{url}/metrics", trust_env=False, timeout=30) for name, url in urls.items()
    }
    # On a busy machine, beat may not measure the ledger in time, and says so in its log.
    for _ in range(30):
        if "uplift_due_oldest_seconds" in pages["beat"].text:
            break
        time.sleep(1)
        pages["beat"] = httpx.get(f"{urls['beat']}/metrics", trust_env=False, timeout=30)
    assert set(pages) == {"api", "worker", "bulk", "beat"}
    for name, page in pages.items():
        assert_clean(page.content, canaries, f"the metrics of {name}")
    counted = {
        name: {family.name for family in text_string_to_metric_families(page.text)}
        for name, page in pages.items()
    }
    everywhere = set().union(*counted.values())
    for expression in EXPRESSIONS:
        for name, _ in series(expression):
            assert name == "up" or re.sub("_(total|bucket)$", "", name) in everywhere, name
    # What all share is exposed once.
    assert [name for name in counted if "uplift_uploads_due" in counted[name]] == ["beat"]
    assert 'uplift_submissions_total{kind="single",outcome="accepted"}' in pages["api"].text
    assert 'uplift_attempts_total{reason="none",state="delivered"}' in pages["worker"].text
    assert 'uplift_validation_findings_total{code="' in pages["worker"].text
    for status in ("2xx", "4xx", "5xx", "none"):
        (said,) = re.findall(
            rf'^uplift_responses_total{{status="{status}"}} (\S+)$',
            pages["worker"].text,
            re.MULTILINE,
        )
        assert float(said) > 0, status


def test_each_process_is_alive_and_the_health_checks_of_compose_hear_it(running: Running) -> None:
    environment = running.system.environment
    for name in ("api", "worker", "bulk", "beat"):
        assert _health(running.system.admin_urls[name]) == {"status": "alive"}
    worker = running.system.admin_urls["worker"].rpartition(":")[2]
    checks = {
        ("worker", "9800", worker): True,  # of bulk and beat it is the same
        ("flower", "5555", environment["FLOWER_PORT"]): True,
        ("api", "8080", environment["UPLIFT_API_PORT"]): True,
        ("worker", "9800", "1"): False,
        # One that answers without asking for a login is not well.
        ("flower", "5555", environment["UPLIFT_API_PORT"]): False,
    }
    with ThreadPoolExecutor() as threads:
        said = list(threads.map(lambda check: healthy(*check), checks))
    assert dict(zip(checks, said, strict=True)) == checks


def test_redis_holds_ids_only(running: Running, canaries: dict[str, str]) -> None:
    # With the workers away, messages stay to be looked at.
    assert running.system.redis is not None
    running.system.processes["worker"].stop()
    for number in range(5):
        running.api.post(
            "/v1/uploads",
            params={"user": _USER, "fhirVersion": "R4", "source": _SOURCE},
            json=resource(id=f"{_ID}-queued-{number}", note=[{"text": _NOTE}]),
        ).raise_for_status()
    time.sleep(1)
    with redis.Redis.from_url(running.system.redis.url) as server:
        assert server.llen("uploads")
        everything = b"".join(_dump(server))
    running.system.processes.restart("worker")
    assert_clean(everything, canaries, "Redis")
    # Bodies of messages are base64 inside of JSON: look inside as well.
    assert b'"body"' in everything
    assert_clean(_decoded(everything), canaries, "a message")


def _dump(server: "redis.Redis") -> Iterator[bytes]:
    """Every key and all that it holds, whatever its type."""
    for key in server.scan_iter(count=1000):
        yield bytes(key)
        yield bytes(server.dump(key) or b"")
        if server.type(key) == b"list":
            # Long lists are compressed in a dump.
            yield from (
                bytes(item, "latin-1") if isinstance(item, str) else item
                for item in server.lrange(key, 0, -1)
            )


def _decoded(everything: bytes) -> bytes:
    """What stands in base64, wherever it begins."""
    return b"\n".join(
        base64.b64decode(found[start : start + (len(found) - start) // 4 * 4])
        for found in re.findall(rb"[A-Za-z0-9+/]{16,}", everything)
        for start in range(4)
    )


def test_the_logs_hold_none_of_it(running: Running, canaries: dict[str, str]) -> None:
    logs = [
        path
        for path in (running.data_dir).rglob("*.log")
        # The sandbox stands for 1upHealth: what it prints is not ours.
        if path.name != "sandbox.log"
    ]
    assert {"api.log", "worker.log", "beat.log", "flower.log"} <= {path.name for path in logs}
    for path in logs:
        assert_clean(path.read_bytes(), canaries, path.name)
    assert b"attempt_ended" in (running.data_dir / "logs" / "worker.log").read_bytes()


def test_all_that_our_processes_print_is_lines_of_json(
    running: Running, canaries: dict[str, str]
) -> None:
    for name in ("api", "worker", "bulk", "beat", "flower"):
        log = running.data_dir / "logs" / f"{name}.log"
        for line in log.read_text().splitlines():
            assert line.startswith("{") or not line.strip() or _of_the_banner(line), (name, line)


def _of_the_banner(line: str) -> bool:
    """Celery greets, and says goodbye, on standard output."""
    return line[0] in " -*." or line.startswith(("[config]", "[queues]", "[tasks]", "worker: "))


def _health(url: str) -> Any:
    """What a process says of itself, once it has started."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return httpx.get(f"{url}/healthz", trust_env=False).json()
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def healthy(service: str, own: str, port: str) -> bool:
    """What a service's health check says, at a port in place of its own."""
    kind, *words = SERVICES[service]["healthcheck"]["test"]
    assert kind == "CMD"
    assert words[0] == "python"
    assert own in words[-1]
    words[-1] = words[-1].replace(own, port)
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, timeout=60)
    return done.returncode == 0


def test_flower_shows_workers_and_queues_and_none_of_it(
    running: Running, canaries: dict[str, str]
) -> None:
    user, _, password = running.system.flower_login.partition(":")
    pages = ["/", "/workers", "/tasks", "/broker", "/api/workers?refresh=1", "/api/tasks"]
    with httpx.Client(base_url=running.system.flower_url, timeout=30, trust_env=False) as flower:
        for page in ("/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"):
            assert flower.get(page).status_code == httpx.codes.UNAUTHORIZED
        _until_flower_knows_all_workers(flower, (user, password))
        shown = {
            page: flower.get(page, auth=(user, password), follow_redirects=True) for page in pages
        }
        for task in shown["/api/tasks"].json():
            shown[task] = flower.get(f"/task/{task}", auth=(user, password))
        for worker in shown["/api/workers?refresh=1"].json():
            shown[worker] = flower.get(f"/worker/{worker}", auth=(user, password))
            stop = flower.post(f"/api/worker/shutdown/{worker}", auth=(user, password))
            assert stop.status_code == httpx.codes.FORBIDDEN
        for closed in ("/metrics", "/healthcheck"):
            assert flower.get(closed).status_code == httpx.codes.NOT_FOUND
            assert flower.get(closed, auth=(user, password)).status_code == httpx.codes.NOT_FOUND
    for page, response in shown.items():
        assert response.status_code == httpx.codes.OK, page
        assert_clean(response.content, canaries, f"Flower's {page}")
    tasks = shown["/api/tasks"].json().values()
    # Of a task whose beginning Flower missed it does not know the name.
    assert {task["name"] for task in tasks} - {None} == {"uplift.deliver"}
    consumed = {
        worker.partition("@")[0]: [queue["name"] for queue in told["active_queues"]]
        for worker, told in shown["/api/workers?refresh=1"].json().items()
    }
    assert consumed == {"uploads": ["uploads"], "bulk": ["bulk"]}
    for queue in ("uploads", "bulk"):
        assert queue in shown["/broker"].text


def _until_flower_knows_all_workers(flower: httpx.Client, login: tuple[str, str]) -> None:
    deadline = time.monotonic() + 30
    while True:
        workers = flower.get("/api/workers", params={"refresh": 1}, auth=login).json()
        if {name.partition("@")[0] for name in workers} == {"uploads", "bulk"}:
            return
        assert time.monotonic() < deadline, workers
        time.sleep(0.5)


def test_the_ledger_holds_nothing_of_a_record_in_the_clear(
    running: Running, canaries: dict[str, str]
) -> None:
    # What the backend calls the person is no secret: it is what callers ask by.
    sealed = {name: canary for name, canary in canaries.items() if name != "user"}

    async def everything(database: Database) -> bytes:
        parts: list[bytes] = []
        async with database.transaction() as connection:
            tables = await connection.scalars(
                text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            )
            for table in tables:
                rows = await connection.scalars(text(f"SELECT t::text FROM {table} AS t"))  # noqa: S608
                for row in rows:
                    parts.append(row.encode())
                    # bytea shows as \x…: look at the bytes, too.
                    parts.extend(bytes.fromhex(hexed) for hexed in _hex_of(row))
        return b"\n".join(parts)

    assert_clean(running.on_ledger(everything), sealed, "the ledger")


def _hex_of(row: str) -> list[str]:
    return [found[: len(found) // 2 * 2] for found in re.findall(r"\\x([0-9a-f]+)", row)]


def test_no_file_of_the_system_is_readable_by_others(running: Running) -> None:
    for path in (running.data_dir, running.data_dir / "logs"):
        if path.stat().st_uid == os.getuid():
            # Another account, that of PostgreSQL, may pass through a folder. It lists nothing.
            assert not path.stat().st_mode & 0o006, path
    for name in ("master_keys", "redis/redis.conf"):
        assert not (running.data_dir / Path(name)).stat().st_mode & 0o077, name
