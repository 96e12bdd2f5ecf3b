"""One storm from its start to its findings."""

import asyncio
import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
from pydantic import SecretStr

from chaos import checks, figures, scenario
from chaos.cluster import Stage
from chaos.collect import gather
from chaos.devices import Devices
from chaos.evidence import Evidence
from chaos.scenario import Harm
from chaos.terms import Terms
from uplift.ledger import credentials
from uplift.ledger.credentials import Scope
from uplift.ledger.database import Database
from uplift.lifecycle import UNFINISHED
from uplift.settings import Settings

_SAY_EVERY = 5.0
_TEND_EVERY = 0.5
_COUNT = "SELECT state, count(*) FROM uploads GROUP BY state ORDER BY state"


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What a storm left, and what is wrong with it, by check."""

    evidence: Evidence
    findings: dict[str, list[str]]
    report: list[str]

    @property
    def holds(self) -> bool:
        """Whether every check does."""
        return not any(self.findings.values())


def blow(terms: Terms, folder: Path, say: Callable[[str], None]) -> Aftermath:
    """Run a storm in an empty folder, which keeps its logs and ledger."""
    began = time.monotonic()
    plan = scenario.write(terms)
    say(f"seed {terms.seed}: {terms.uploads} uploads, {terms.kills} kills, {terms.seconds:.0f} s")
    with Stage(folder, terms, plan.processes) as stage:
        stage.until_ready()
        key = asyncio.run(_add_key(stage))
        _add_users(stage, key, terms)
        devices = Devices(stage.api_urls, key, plan.devices, terms.seed)
        devices.start()
        _rage(stage, devices, plan.harms, say)
        stage.calm()
        calm_since = time.monotonic()
        _await_settled(stage, devices, terms, say)
        settling = time.monotonic() - calm_since
        evidence = gather(
            terms,
            devices.diary,
            database_url=stage.environment["UPLIFT_DATABASE_URL"],
            api_url=stage.api_urls[0],
            key=key,
            upstream=stage.sandbox,
        )
        if devices.failure is not None:
            evidence.wrong.append(f"the devices ended by {devices.failure!r}")
        findings = checks.run(evidence)
        report = list(
            figures.lines(
                evidence,
                findings,
                done=stage.done,
                met=devices.diary.met,
                seconds=time.monotonic() - began,
                settling=settling,
            )
        )
    return Aftermath(evidence, findings, report)


def _rage(
    stage: Stage, devices: Devices, harms: tuple[Harm, ...], say: Callable[[str], None]
) -> None:
    """Do every harm at its time; start again what ends by itself."""
    began = time.monotonic()
    # The number decides between two of one time; harms themselves have no order.
    queue = [(harm.at, number, harm) for number, harm in enumerate(harms)]
    heapq.heapify(queue)
    tended = said = 0.0
    while queue:
        now = time.monotonic() - began
        if queue[0][0] <= now:
            _, number, harm = heapq.heappop(queue)
            if not stage.do(harm) and harm.kind == "kill":
                # It is down already: a kill that kills nobody does not count.
                heapq.heappush(queue, (now + 1.0, number, harm))
        if now >= tended + _TEND_EVERY:
            tended = now
            stage.tend()
        if now >= said + _SAY_EVERY:
            said = now
            say(_progress(stage, devices, now))
        time.sleep(max(0.0, min(queue[0][0] - now, 0.1)) if queue else 0)


def _await_settled(
    stage: Stage, devices: Devices, terms: Terms, say: Callable[[str], None]
) -> None:
    """Until the devices are through and nothing is under way, or nothing moves any more."""
    began = moved = said = time.monotonic()
    before: object = None
    # Requests that a frozen API took up are answered by now, and late commits have been made.
    calm_at = began + max(terms.late, terms.lag) + 1.0
    while (now := time.monotonic()) < min(began + terms.give_up_waiting, moved + terms.patience):
        stage.tend()
        counts = _counts(stage)
        standing = (counts, len(devices.diary.told))
        if standing != before:
            moved, before = now, standing
        if now >= calm_at:
            devices.calm()
            if not devices.is_alive() and not any(counts.get(state) for state in UNFINISHED):
                return
        if now >= said + _SAY_EVERY:
            said = now
            say(_progress(stage, devices, now - began) + " (settling)")
        time.sleep(0.2)
    devices.leave()
    devices.join(30)


def _counts(stage: Stage) -> dict[str, int]:
    url = stage.environment["UPLIFT_DATABASE_URL"]
    with psycopg.connect(url, connect_timeout=2, options="-c statement_timeout=5000") as connection:
        return dict(connection.execute(_COUNT).fetchall())


def _progress(stage: Stage, devices: Devices, seconds: float) -> str:
    try:
        states = " ".join(f"{state} {number}" for state, number in _counts(stage).items())
    except psycopg.Error:
        states = "the ledger is away"
    kills = sum(number for name, number in stage.done.items() if name.startswith("kill "))
    told = len(devices.diary.told)
    return f"{seconds:4.0f} s  202s {told}  kills {kills}  {stage.weather}: {states}"


async def _add_key(stage: Stage) -> str:
    url = SecretStr(stage.environment["UPLIFT_DATABASE_URL"])
    database = Database.connect(Settings(database_url=url))
    try:
        async with database.transaction() as connection:
            return (await credentials.add_api_key(connection, "storm", frozenset({Scope.BACKEND})))[
                1
            ]
    finally:
        await database.close()


def _add_users(stage: Stage, key: str, terms: Terms) -> None:
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}, trust_env=False) as api:
        for number in range(terms.users):
            api.post(
                f"{stage.api_urls[0]}/v1/users",
                json={"appUserId": f"person-{number}"},
                timeout=30,
            ).raise_for_status()
