"""The main job in real processes: everything in an export arrives, whatever is killed meanwhile."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from tests.factories import resource
from tests.system.conftest import Running
from uplift.cli.push.client import ApiClient
from uplift.cli.push.push import push_records
from uplift.cli.push.result import PushResult, ResponseKind
from uplift.sandbox.export.make_export import Manifest, write_export

_CREATE = {"api": "fhir", "method": "POST"}


async def push(
    running: Running, export: Path, user: str, meanwhile: Callable[[], None] | None = None
) -> PushResult:
    async with ApiClient(running.system.api_url, running.key, connections=4) as client:
        pushing = asyncio.create_task(push_records(client, export, user=user, wait_seconds=90))
        if meanwhile is not None:
            await asyncio.to_thread(meanwhile)
        return await pushing


def until_stored(running: Running, user: str, count: int) -> None:
    """Wait until so many of the user's resources are at the sandbox."""
    deadline = time.monotonic() + 60
    while running.sandbox.counts(user=user)["total"]["resources"] < count:
        assert time.monotonic() < deadline, "nothing arrives"
        time.sleep(0.05)


def assert_all_arrived(running: Running, user: str, result: PushResult, manifest: Manifest) -> None:
    totals = result.totals()
    assert totals.get(ResponseKind.DELIVERED) == len(manifest.valid)
    assert totals.get(ResponseKind.REJECTED) == len(manifest.broken)
    assert totals.get(ResponseKind.SKIPPED) == len(manifest.missing)
    stored = running.sandbox.counts(user=user)["total"]
    assert stored["resources"] == stored["versions"] == len(manifest.valid)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    path = tmp_path_factory.mktemp("export") / "apple-health-export.zip"
    return path, write_export(path)


@pytest.fixture(scope="module")
def pushed(running: Running, export: tuple[Path, Manifest]) -> PushResult:
    """What became of the whole export."""
    running.add_user("whole")
    return asyncio.run(push(running, export[0], "whole"))


def test_a_whole_export_arrives_and_what_is_broken_is_rejected_at_its_element(
    running: Running, export: tuple[Path, Manifest], pushed: PushResult
) -> None:
    result, manifest = pushed, export[1]
    assert_all_arrived(running, "whole", result, manifest)
    rejected = {
        each.label: [where for issue in each.issues for where in issue.expression]
        for each in result.records
        if each.outcome is ResponseKind.REJECTED
    }
    for broken in manifest.broken:
        assert broken.fault in rejected[broken.path]


@pytest.mark.usefixtures("pushed")
def test_pushing_the_same_export_again_sends_nothing_on(
    running: Running, export: tuple[Path, Manifest]
) -> None:
    path, manifest = export
    before = len(running.sandbox.requests(api="fhir"))
    result = asyncio.run(push(running, path, "whole"))
    assert len(running.sandbox.requests(api="fhir")) == before
    assert result.totals().get(ResponseKind.DUPLICATE) == len(manifest.valid)


def test_a_worker_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    running: Running, export: tuple[Path, Manifest]
) -> None:
    path, manifest = export
    running.add_user("killed")
    running.sandbox.faults({"kind": "slow", "seconds": 0.3, "match": _CREATE})

    def kill_twice() -> None:
        for stored in (60, 150):
            until_stored(running, "killed", stored)
            running.system.processes.kill("bulk")
            running.system.processes.restart("bulk")

    result = asyncio.run(push(running, path, "killed", kill_twice))
    running.sandbox.clear_faults()
    assert_all_arrived(running, "killed", result, manifest)


def test_a_queue_that_is_flushed_in_the_middle_loses_and_doubles_nothing(
    running: Running, export: tuple[Path, Manifest]
) -> None:
    path, manifest = export
    running.add_user("flushed")
    running.sandbox.faults({"kind": "slow", "seconds": 0.3, "match": _CREATE})
    assert running.system.redis is not None
    with redis.Redis.from_url(running.system.redis.url) as server:

        def flush() -> None:
            for stored in (40, 120, 200):
                until_stored(running, "flushed", stored)
                server.flushall()

        result = asyncio.run(push(running, path, "flushed", flush))
    running.sandbox.clear_faults()
    assert_all_arrived(running, "flushed", result, manifest)


def test_a_worker_that_is_asked_to_stop_hands_back_what_it_has_not_sent(
    running: Running, export: tuple[Path, Manifest]
) -> None:
    path, manifest = export
    running.add_user("stopped")
    running.sandbox.faults({"kind": "slow", "seconds": 0.3, "match": _CREATE})

    def stop_and_start() -> None:
        until_stored(running, "stopped", 60)
        running.system.processes.restart("bulk")

    result = asyncio.run(push(running, path, "stopped", stop_and_start))
    running.sandbox.clear_faults()
    assert_all_arrived(running, "stopped", result, manifest)
    # Nothing was cut off: each record went up in one request.
    creates = [
        each
        for each in running.sandbox.requests(api="fhir")
        if each["user"] == _oneup_user(running, "stopped")
    ]
    assert len(creates) == len(manifest.valid)


def _oneup_user(running: Running, name: str) -> object:
    return running.api.get(f"/v1/users/{name}").json()["oneupUserId"]


def test_everything_listens_on_loopback_only(running: Running) -> None:
    ours = [
        process
        for root in psutil.Process().children()
        for process in (root, *root.children(recursive=True))
    ]
    listening = [
        connection.laddr.ip
        for process in ours
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) == {"127.0.0.1"}


def test_servers_that_end_by_themselves_are_started_again(running: Running) -> None:
    system = running.system
    running.add_user("outage")
    assert system.postgres is not None
    assert system.redis is not None
    system.postgres.kill()
    system.redis.kill()
    assert {system.postgres.title, system.redis.title} <= set(system.tend())
    accepted = running.api.post(
        "/v1/uploads", params={"user": "outage", "fhirVersion": "R4"}, json=resource()
    )
    deadline = time.monotonic() + 60
    while accepted.is_error and time.monotonic() < deadline:
        time.sleep(0.5)
        accepted = running.api.post(
            "/v1/uploads", params={"user": "outage", "fhirVersion": "R4"}, json=resource()
        )
    status_url = accepted.json()["statusUrl"]
    while time.monotonic() < deadline:
        status = running.api.get(status_url, params={"wait": 10}).json()
        if status["final"]:
            break
    assert status["status"] == "delivered"
