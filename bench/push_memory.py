"""`uplift push`: its peak memory with few and many, small and large records, and what arrived.

`python -m bench.push_memory` runs the whole system on loopback, for about a minute. It fails unless
every valid record arrived once, every invalid one was rejected, and the memory stayed flat: a few
facts about each record stay in memory, the records do not.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from pydantic import SecretStr

from bench.testbed import API
from uplift.cli.local.system import System, command
from uplift.ledger import credentials
from uplift.ledger.credentials import BACKEND, Scope
from uplift.ledger.database import Database
from uplift.sandbox.export.make_export import write_export
from uplift.sealing import KeyRing
from uplift.settings import Settings

FEW, MANY = 500, 5000
NOTE_BYTES = 12 * 1024
_MIB = 1024 * 1024
# Its label, ids and outcome, its entry in an archive's directory and in a page of statuses.
_BYTES_PER_RECORD = 4096
_LARGE_MORE_BYTES = 8 * _MIB


@dataclass(frozen=True, slots=True)
class Source:
    """What is pushed, and its expected outcome."""

    path: Path
    what: str
    expected: dict[str, int]


def export(folder: Path, records: int) -> Source:
    """An Apple Health export with this many records."""
    path = folder / f"export-{records}.zip"
    manifest = write_export(path, records=records)
    expected = {
        "delivered": len(manifest.valid),
        "rejected": len(manifest.broken),
        "skipped": len(manifest.missing),
    }
    return Source(path, f"export of {records}", expected)


def large(folder: Path, records: int) -> Source:
    """NDJSON with this many records, each with a long note."""
    path = folder / "large.ndjson"
    with path.open("w", encoding="utf-8") as file:
        for number in range(records):
            record = {
                "resourceType": "Observation",
                "id": f"large-{number}",
                "status": "final",
                "code": {"text": "Note"},
                "note": [{"text": f"{number:06} " * (NOTE_BYTES // 7)}],
            }
            file.write(json.dumps({"fhirVersion": "R4", "resource": record}) + "\n")
    return Source(path, f"{records} of {NOTE_BYTES // 1024} KiB", {"delivered": records})


def push(system: System, source: Source, key: str) -> dict[str, Any]:
    """Push it for a new user, in a process of its own, and check what arrived. Peaks in bytes."""
    user, report = source.path.stem, source.path.with_suffix(".report.json")
    headers = {"Authorization": f"Bearer {key}"}
    httpx.post(
        f"{system.api_url}/v1/users", json={"appUserId": user}, headers=headers, timeout=30
    ).raise_for_status()
    api = psutil.Process(system.processes[API].pid)
    begun = time.monotonic()
    child = subprocess.Popen(
        [
            *command("push", str(source.path), "--user", user),
            *("--json", str(report), "--api", system.api_url, "--key", key),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    watched = psutil.Process(child.pid)
    peak = api_peak = 0
    while child.poll() is None:
        peak = max(peak, watched.memory_info().rss)
        api_peak = max(api_peak, api.memory_info().rss)
        time.sleep(0.02)
    seconds = time.monotonic() - begun
    totals = json.loads(report.read_text())["totals"]
    oneup_user = httpx.get(f"{system.api_url}/v1/users/{user}", headers=headers, timeout=30).json()[
        "oneupUserId"
    ]
    stored = httpx.get(
        f"{system.sandbox_url}/_sandbox/counts",
        params={"user": oneup_user},
        headers={"Authorization": f"Bearer {system.sandbox_token}"},
        timeout=60,
    ).json()["total"]
    print(
        f"{source.what:>16}: push peaks at {peak / _MIB:.0f} MiB, the API at"
        f" {api_peak / _MIB:.0f} MiB, {seconds:.0f} s, {totals}"
    )
    if totals != {name: count for name, count in source.expected.items() if count}:
        sys.exit(f"{source.what}: it should be {source.expected}.")
    if stored["versions"] != source.expected["delivered"]:
        sys.exit(f"{source.what}: 1upHealth was sent {stored['versions']}.")
    return {
        "peak_rss": peak,
        "api_peak_rss": api_peak,
        "seconds": round(seconds, 1),
        "totals": totals,
    }


def main() -> dict[str, Any]:
    """Measure and print; fail if the memory is not flat."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"UPLIFT_ONEUP_KEEPS_IDS": "true", "UPLIFT_LOG_LEVEL": "warning"}
        with System(folder / "data", settings, any_port=True) as system:
            key = asyncio.run(_add_key(system))
            sources = [export(folder, FEW), export(folder, MANY), large(folder, MANY)]
            few, many, heavy = (push(system, source, key) for source in sources)
    if many["peak_rss"] - few["peak_rss"] > (MANY - FEW) * _BYTES_PER_RECORD:
        sys.exit("Not flat: the memory of `uplift push` grows with the number of records.")
    if heavy["peak_rss"] - many["peak_rss"] > _LARGE_MORE_BYTES:
        sys.exit("Not flat: the memory of `uplift push` grows with the size of records.")
    return {"few": few, "many": many, "large": heavy}


async def _add_key(system: System) -> str:
    url = SecretStr(system.environment["UPLIFT_DATABASE_URL"])
    database = Database.connect(Settings(database_url=url))
    try:
        async with database.transaction() as connection:
            key_ring = KeyRing.parse(system.environment["UPLIFT_MASTER_KEYS"])
            scopes = BACKEND | {Scope.OPERATOR}
            return (await credentials.add_api_key(connection, key_ring, "bench", scopes))[1]
    finally:
        await database.close()


if __name__ == "__main__":
    main()
