"""`python -m chaos.recovery`: how soon all is well again after each fault, as a table.

One fault after the other, while one device sends an upload every quarter of a second. The simulated
1upHealth needs a second for each, so that some are in flight when a fault begins.
"""

import argparse
import asyncio
import itertools
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from chaos.clocks import without_jump
from chaos.cluster import Cluster
from chaos.lasting import LASTING
from chaos.options import Options
from chaos.run import add_key, add_people
from chaos.scenario import processes_of
from chaos.told import Examination, examined, failures
from uplift.cli.local.processes import interrupted_by_signals

# Silence as in a deployment. The other times are short, so that they can be told from it.
OPTIONS = Options(users=1, attempt=10.0, lease=120.0, silence=15.0, settle=5.0)
NEW_SECONDS = 15.0
"""So soon after a fault, what is accepted then is delivered."""

_EVERY = 0.25
_NEW = 5  # uploads
_GIVE_UP = 120.0
_STATES = """
    SELECT id::text, state, extract(epoch FROM delivered_at)::float8 FROM uploads
    WHERE id = ANY(%s::uuid[])
"""

Lasts = Callable[[Cluster], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """A fault, how long it lasts, and until when what was in flight may wait, in seconds.

    `asked_after` is when the doctor is asked while it lasts; 0: not at all, since a supervisor
    starts again what has ended. It is asked again until it fails for a part of `told`, on the
    second machine if `cut_off`.
    """

    name: str
    lasts: Lasts
    seconds: float = 6.0
    in_flight: float = NEW_SECONDS + OPTIONS.settle
    asked_after: float = 0.0
    told: frozenset[str] = frozenset()
    cut_off: bool = False


@dataclass(slots=True)
class Sent:
    """The uploads of the device, each with the time at which it was accepted."""

    accepted: list[tuple[float, str]] = field(default_factory=list)

    def since(self, at: float) -> list[str]:
        """The first few that were accepted from then on."""
        return [id_ for accepted_at, id_ in list(self.accepted) if accepted_at >= at][:_NEW]


class Device(threading.Thread):
    """Sends uploads until it is stopped, whatever it is answered."""

    def __init__(self, urls: list[str], key: str) -> None:
        super().__init__(name="device", daemon=True)
        self._urls = itertools.cycle(urls)
        self._key = key
        self.sent = Sent()
        self.over = threading.Event()

    def run(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        with httpx.Client(headers=headers, timeout=3, trust_env=False) as client:
            for number in itertools.count():
                if self.over.wait(_EVERY):
                    return
                body = {
                    "resourceType": "Observation",
                    "id": f"o-{number}",
                    "status": "final",
                    "code": {"text": "pulse"},
                    "valueInteger": number,
                }
                with suppress(httpx.TransportError):
                    response = client.post(
                        f"{next(self._urls)}/v1/uploads",
                        params={"user": "person-0", "fhirVersion": "R4"},
                        json=body,
                    )
                    if response.status_code == httpx.codes.ACCEPTED:
                        self.sent.accepted.append((time.time(), response.json()["id"]))


def _killed(target: str, *, told: bool = True) -> Lasts:
    @contextmanager
    def lasts(cluster: Cluster) -> Iterator[None]:
        server = cluster.server(target)
        if server is not None:
            server.kill()
        else:
            cluster.system.processes.kill(target)
        yield
        if server is not None:
            server.start()
        elif told:
            cluster.system.restart(target)
        else:
            cluster.system.processes.restart(target)

    return lasts


def _frozen(target: str) -> Lasts:
    @contextmanager
    def lasts(cluster: Cluster) -> Iterator[None]:
        pid = cluster.system.processes[target].pid
        assert pid is not None  # noqa: S101  it is started again after each fault
        os.killpg(pid, signal.SIGSTOP)
        yield
        os.killpg(pid, signal.SIGCONT)

    return lasts


def _upstream(**rule: Any) -> Lasts:
    @contextmanager
    def lasts(cluster: Cluster) -> Iterator[None]:
        cluster.sandbox.faults({"match": {"api": "fhir", "method": "POST"}, **rule})
        yield
        cluster.sandbox.clear_faults()
        _slow(cluster)

    return lasts


def _server(name: str) -> Lasts:
    def lasts(cluster: Cluster) -> AbstractContextManager[None]:
        return LASTING[name].lasts(cluster.ground)

    return lasts


_UPSTREAM: dict[str, dict[str, Any]] = {
    "answers 401": {"kind": "status", "status": 401},
    "answers 403": {"kind": "status", "status": 403},
    "answers 400 to 40 %": {"kind": "status", "status": 400, "probability": 0.4},
    "answers 429": {"kind": "too_many_requests"},
    "answers 503": {"kind": "status", "status": 503},
    "cuts every connection": {"kind": "reset"},
    "sends headers of 100 KB": {
        "kind": "status",
        "status": 503,
        "headers": {"X-Long": "x" * 100_000},
    },
}


def cases() -> list[Case]:
    """Every fault of the table."""
    # Of a process that may only stand still, nothing is sent again before its deadline and settle.
    not_told = NEW_SECONDS + OPTIONS.attempt + OPTIONS.settle
    return [
        Case("a worker is killed, and its supervisor tells", _killed("worker")),
        Case("a worker is killed, and nobody tells", _killed("worker-2", told=False), 6, not_told),
        Case("a worker stands still (SIGSTOP)", _frozen("worker"), 20, not_told),
        Case("beat is killed", _killed("beat")),
        Case("an API process is killed", _killed("api")),
        Case("PostgreSQL is killed", _killed("postgres"), 15, asked_after=3),
        Case("Redis is killed", _killed("redis"), 15, asked_after=3),
        *(
            Case(name, _server(name), 25, asked_after=3, told=each.told, cut_off=each.cut_off)
            for name, each in LASTING.items()
        ),
        *(
            Case(f"1upHealth {what}", _upstream(**rule), 30, asked_after=20)
            for what, rule in _UPSTREAM.items()
        ),
    ]


def _slow(cluster: Cluster) -> None:
    cluster.sandbox.faults(
        {"kind": "slow", "seconds": 1.0, "match": {"api": "fhir", "method": "POST"}}
    )


def measure(cluster: Cluster, device: Device, case: Case) -> tuple[str, bool]:
    """Cause the fault, and wait until all is well: a row of the table, and whether it holds."""
    in_flight = _in_flight(cluster)
    with case.lasts(cluster):
        began = time.monotonic()
        time.sleep(case.asked_after or case.seconds)
        environment = cluster.second_environment if case.cut_off else cluster.environment
        examination = Examination(environment, until=case.told)
        if case.asked_after:
            examination.start()
        time.sleep(max(0.0, began + case.seconds - time.monotonic()))
        told = _told(examination) if case.asked_after else "not asked"
        examination.end()
    ended = time.time()
    if case.asked_after:
        examination.join()
    new = _seconds_until(cluster, ended, lambda: device.sent.since(ended))
    old = _seconds_until(cluster, ended, lambda: in_flight)
    well = _until_well(cluster, ended)
    holds = new <= NEW_SECONDS and old <= case.in_flight
    shown = " | ".join(_shown(each) for each in (new, old, well))
    return f"| {case.name} | {told} | {shown} |", holds


def _shown(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds <= _GIVE_UP else f"not in {_GIVE_UP:.0f}"


def _told(examination: Examination) -> str:
    parts = list(dict.fromkeys(each.part for each in failures(examination.findings)))
    return ", ".join(parts) or ("nothing yet" if examination.is_alive() else "nothing")


def _in_flight(cluster: Cluster) -> list[str]:
    url = cluster.environment["UPLIFT_DATABASE_URL"]
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT id::text FROM uploads WHERE state = 'sending'")
        return [id_ for (id_,) in rows.fetchall()]


def _seconds_until(cluster: Cluster, ended: float, ids: Callable[[], list[str]]) -> float:
    """How long after the end of the fault the last of these was delivered, or ended otherwise."""
    url = cluster.environment["UPLIFT_DATABASE_URL"]
    while time.time() < ended + _GIVE_UP:
        wanted = ids()
        with suppress(psycopg.Error), psycopg.connect(url, connect_timeout=2) as connection:
            rows = connection.execute(_STATES, (wanted,)).fetchall()
            over = [row for row in rows if row[1] not in ("queued", "sending", "parked")]
            if wanted and len(over) == len(wanted) and (ids() == wanted):
                return max(0.0, max(without_jump(row[2] or 0.0) for row in over) - ended)
            if not wanted and time.time() > ended + _GIVE_UP / 4:
                return 0.0
        time.sleep(0.2)
    return _GIVE_UP + 1


def _until_well(cluster: Cluster, ended: float) -> float:
    """How long after the end of the fault the doctor's exit code is 0."""
    while time.time() < ended + _GIVE_UP:
        began = time.time()
        if not failures(examined(cluster.environment)):
            return began - ended
        time.sleep(0.5)
    return _GIVE_UP + 1


def run(folder: Path, say: Callable[[str], None], only: str) -> bool:
    """Measure every case in an empty folder; whether all hold."""
    chosen = [case for case in cases() if only in case.name]
    every = True
    with Cluster(folder, OPTIONS, processes_of(OPTIONS)) as cluster:
        cluster.until_ready()
        key = asyncio.run(add_key(cluster))
        add_people(cluster, key, OPTIONS.people)
        _slow(cluster)
        device = Device(cluster.api_urls, key)
        device.start()
        time.sleep(OPTIONS.silence + 5)  # so that silence counts
        say("| fault | told by doctor as | new, s | in flight, s | doctor well, s |")
        say("|---|---|---|---|---|")
        for case in chosen:
            row, holds = measure(cluster, device, case)
            every = every and holds
            say(row + ("" if holds else " **too late**"))
            cluster.restart_ended()
            time.sleep(3)
        device.over.set()
        device.join()
        ended = {name: n for name, n in cluster.done.items() if name.startswith("ended")}
        say(f"Ended by themselves: {ended or 'none'}.")
    return every


def main() -> int:
    """Read the command line, measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m chaos.recovery", description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    parser.add_argument("--folder", type=Path, help="keeps logs and ledger")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="uplift-recovery-"))
    try:
        with interrupted_by_signals():
            return int(not run(folder, lambda line: print(line, flush=True), asked.only))
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
