"""One chaos run, from its start to its findings."""

import asyncio
import heapq
import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
from pydantic import SecretStr

from chaos import checks, figures, put_checks, scenario
from chaos.cluster import Cluster
from chaos.collect import collect
from chaos.devices import Devices
from chaos.evidence import Evidence
from chaos.leaver import NAME as LEAVER
from chaos.leaver import Leaver
from chaos.options import Options
from chaos.scenario import Fault
from chaos.told import examined, failures
from uplift.cli.local.system import command
from uplift.ledger import credentials
from uplift.ledger.credentials import BACKEND
from uplift.ledger.database import Database
from uplift.lifecycle import UNFINISHED, State
from uplift.sealing import KeyRing
from uplift.settings import Settings

_SAY_EVERY = 5.0
_MUST_HAPPEN = {"kill", "back up", "promote", "restore", "add people"}
_RESTART_EVERY = 0.5
_WELL_SECONDS = 30.0
_ADD_TRIES = 30
_LEAVES = 0.75  # of the run: after the last restore, which would bring the person back
_REDRIVE = "uplift uploads redrive"
_COUNT = "SELECT state, count(*) FROM uploads GROUP BY state ORDER BY state"


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left behind, and the findings of each check."""

    evidence: Evidence
    findings: dict[str, list[str]]
    report: list[str]

    @property
    def holds(self) -> bool:
        """Whether no check found anything."""
        return not any(self.findings.values())


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Result:
    """Run in an empty folder, which keeps the logs and the ledger."""
    began = time.monotonic()
    plan = scenario.write(options)
    say(
        f"seed {options.seed}: {options.uploads} uploads, {options.kills} kills,"
        f" {options.seconds:.0f} s"
    )
    with Cluster(folder, options, plan.processes) as cluster:
        cluster.until_ready()
        key = asyncio.run(add_key(cluster))
        backend = Backend(cluster, key, plan.late)
        add_people(cluster, key, [each for each in options.people if each not in plan.late])
        devices = Devices(cluster.api_urls, key, plan.devices, options.seed, plan.late)
        add_people(cluster, key, [LEAVER])
        leaver = Leaver(cluster.api_urls, key, after=_LEAVES * options.seconds)
        devices.start()
        # What is stored later than anybody waits for, nobody can find to delete it.
        if not options.beyond:
            leaver.start()
        _inject(cluster, backend, devices, plan.faults, say)
        cluster.heal()
        cluster.until_api_answers()
        # A promoted standby may have lost them again.
        for _ in range(_ADD_TRIES):
            if backend.add_late():
                break
            time.sleep(1.0)
        healed = time.monotonic()
        _await_settled(cluster, devices, leaver, options, say)
        settling = time.monotonic() - healed
        not_told = [*cluster.not_told, *_doctor_at_last(cluster)]
        if _redriven(cluster):
            _await_settled(cluster, devices, leaver, options, say)
        evidence = collect(
            options,
            devices.log,
            database_url=cluster.environment["UPLIFT_DATABASE_URL"],
            api_url=cluster.api_urls[0],
            key=key,
            upstream=cluster.sandbox,
            restores=cluster.restores,
            leaver=leaver,
        )
        evidence.not_told.extend(not_told)
        if devices.failure is not None:
            evidence.unexpected.append(f"the devices stopped with {devices.failure!r}")
        findings = checks.run(evidence, put_checks.CHECKS if options.puts else checks.CHECKS)
        report = list(
            figures.lines(
                evidence,
                findings,
                done=cluster.done,
                errors=devices.log.errors,
                seconds=time.monotonic() - began,
                settling=settling,
            )
        )
    return Result(evidence, findings, report)


class Backend:
    """The apps' backend: it adds people, also again those whom a restore has forgotten."""

    def __init__(self, cluster: Cluster, key: str, late: Collection[str]) -> None:
        self._cluster = cluster
        self._key = key
        self._late = late

    def cause(self, fault: Fault) -> bool:
        """Add the people who come late, if that is asked; whether it was done."""
        return fault.kind == "add people" and self.add_late()

    def add_late(self) -> bool:
        """Add them; whether all are there."""
        try:
            add_people(self._cluster, self._key, self._late)
        except httpx.HTTPError:
            return False
        return True


def _inject(
    cluster: Cluster,
    backend: Backend,
    devices: Devices,
    faults: tuple[Fault, ...],
    say: Callable[[str], None],
) -> None:
    """Cause every fault at its time; start again each process that ends by itself."""
    began = time.monotonic()
    # The number decides between two faults of the same time; faults themselves have no order.
    queue = [(fault.at, number, fault) for number, fault in enumerate(faults)]
    heapq.heapify(queue)
    restarted = said = 0.0
    put_off: set[int] = set()
    while queue:
        now = time.monotonic() - began
        if queue[0][0] <= now:
            _, number, fault = heapq.heappop(queue)
            happened = backend.cause(fault) or cluster.cause(fault)
            if not happened and fault.kind in _MUST_HAPPEN:
                # Such as a kill: only that of a running process counts.
                put_off.add(number)
                heapq.heappush(queue, (now + 1.0, number, fault))
            elif fault.kind == "kill" and number in put_off:
                # The start that follows it has passed.
                start = Fault(now + 1.0, "start", fault.target)
                heapq.heappush(queue, (start.at, len(faults) + number, start))
        if now >= restarted + _RESTART_EVERY:
            restarted = now
            cluster.restart_ended()
        if now >= said + _SAY_EVERY:
            said = now
            say(_progress(cluster, devices, now))
        time.sleep(max(0.0, min(queue[0][0] - now, 0.1)) if queue else 0)


def _await_settled(
    cluster: Cluster,
    devices: Devices,
    leaver: Leaver,
    options: Options,
    say: Callable[[str], None],
) -> None:
    """Return once all is sent and no upload is unfinished, or once nothing changes any more."""
    began = changed = said = time.monotonic()
    before: object = None
    # By then a thawed API has answered its old requests, and late commits have been made.
    no_late_requests = began + max(options.late, options.lag) + 1.0
    while (now := time.monotonic()) < min(
        began + options.give_up_waiting, changed + options.patience
    ):
        cluster.restart_ended()
        counts = _counts(cluster)
        progress = (counts, len(devices.log.accepted))
        if progress != before:
            changed, before = now, progress
        if now >= no_late_requests:
            devices.nothing_is_frozen()
            is_over = not devices.is_alive() and not leaver.is_alive()
            if is_over and not any(counts.get(state) for state in UNFINISHED):
                return
        if now >= said + _SAY_EVERY:
            said = now
            say(_progress(cluster, devices, now - began) + " (settling)")
        time.sleep(0.2)
    devices.give_up()
    leaver.give_up()
    devices.join(30)
    if leaver.is_alive():
        leaver.join(30)


def _doctor_at_last(cluster: Cluster) -> list[str]:
    """What the doctor still fails for when calls have succeeded for so long. What the faults left
    behind is a line that does not fail, with the command that sends it again.
    """
    until = time.monotonic() + _WELL_SECONDS
    while failed := failures(found := examined(cluster.environment)):
        if time.monotonic() > until:
            return [f"at last, the doctor says of {each.part}: {each.what}" for each in failed]
        time.sleep(1.0)
    if _counts(cluster).get(State.REFUSED) and not any(
        _REDRIVE in (each.do or "") for each in found
    ):
        return ["at last, the doctor names no command for what was refused"]
    return []


def _redriven(cluster: Cluster) -> bool:
    """Do what the doctor says about what was refused; whether there was something."""
    if not _counts(cluster).get(State.REFUSED):
        return False
    subprocess.run(  # noqa: S603  a command of our own
        command(*_REDRIVE.split()[1:], "--status", "refused", "--yes"),
        env={**os.environ, **cluster.environment},
        check=False,  # exit code 1: some stay as they are, and the checks find them
        capture_output=True,
    )
    cluster.done["redrive"] += 1
    return True


def _counts(cluster: Cluster) -> dict[str, int]:
    url = cluster.environment["UPLIFT_DATABASE_URL"]
    with psycopg.connect(
        url, connect_timeout=10, options="-c statement_timeout=30000"
    ) as connection:
        return dict(connection.execute(_COUNT).fetchall())


def _progress(cluster: Cluster, devices: Devices, seconds: float) -> str:
    try:
        states = " ".join(f"{state} {number}" for state, number in _counts(cluster).items())
    except psycopg.Error:
        states = "the ledger is not reachable"
    kills = sum(number for name, number in cluster.done.items() if name.startswith("kill "))
    accepted = len(devices.log.accepted)
    return (
        f"{seconds:4.0f} s  202s {accepted}  kills {kills}  upstream {cluster.upstream}: {states}"
    )


async def add_key(cluster: Cluster) -> str:
    """An API key of the backend."""
    url = SecretStr(cluster.environment["UPLIFT_DATABASE_URL"])
    database = Database.connect(Settings(database_url=url))
    try:
        async with database.transaction() as connection:
            key_ring = KeyRing.parse(cluster.environment["UPLIFT_MASTER_KEYS"])
            scopes = BACKEND
            return (await credentials.add_api_key(connection, key_ring, "chaos", scopes))[1]
    finally:
        await database.close()


def add_people(cluster: Cluster, key: str, people: Iterable[str]) -> None:
    """These are the people whose devices send. Raises httpx.HTTPError if one cannot be added."""
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}, trust_env=False) as api:
        for person in people:
            api.post(
                f"{cluster.api_urls[0]}/v1/users", json={"appUserId": person}, timeout=30
            ).raise_for_status()
