"""The p95 of 50 honest devices alone, and beside each hostile client. Target: it at most doubles.

Each hostile client has an API key of its own, except those that need no credential. The honest
ones are measured alone before each, because the machine's speed changes.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import percentile
from bench.hostile_clients import HOSTILE, Setup
from bench.resources import bodies
from bench.testbed import API, Testbed, open_testbed, upstream
from uplift.key_source import read_key_ring
from uplift.ledger import credentials, users
from uplift.ledger.credentials import BACKEND
from uplift.ledger.database import Database

CLIENTS = 50
SECONDS = 4.0
TARGET = 2.0
_SETTLE_SECONDS = 1.5
_UPLOADS = 1000


def main() -> dict[str, Any]:
    """Measure, print the table, and return what was found."""
    found = {}
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        upstream(Path(folder)) as stand_in,
        open_testbed(Path(folder) / "uplift", stand_in, processes=(API,)) as testbed,
    ):
        setup = asyncio.run(_set_up(testbed))
        _honest(replace(setup, seconds=2.0))  # the first requests of a process are slow
        for kind in HOSTILE:
            alone = _honest(setup)
            with _hostile(kind, setup):
                time.sleep(_SETTLE_SECONDS)
                beside = _honest(setup)
            found[kind] = {
                "alone_p95_ms": percentile(alone["seconds"], 95) * 1000,
                "beside_p95_ms": percentile(beside["seconds"], 95) * 1000,
                "answers": len(beside["seconds"]),
                "not_202": beside["others"],
            }
            time.sleep(_SETTLE_SECONDS)
    Console(width=None if os.isatty(1) else 160).print(table(found))
    return found


def table(found: dict[str, dict[str, float]]) -> Table:
    """What was found, as it is printed."""
    shown = Table(title=f"p95 of {CLIENTS} honest devices (ms)")
    for name in ("beside", "alone", "beside it", "ratio", "not 202", f"at most {TARGET:g}"):
        shown.add_column(name, justify="left" if name == "beside" else "right")
    for kind, each in found.items():
        ratio = each["beside_p95_ms"] / each["alone_p95_ms"]
        shown.add_row(
            kind,
            f"{each['alone_p95_ms']:.0f}",
            f"{each['beside_p95_ms']:.0f}",
            f"{ratio:.2f}",
            f"{each['not_202']:.0f} of {each['answers']:.0f}",
            "reached" if ratio <= TARGET else "not reached",
        )
    return shown


async def _set_up(testbed: Testbed) -> Setup:
    ids = await asyncio.to_thread(
        testbed.put_in, [("R4", type_, body) for type_, body in bodies(testbed.label(), _UPLOADS)]
    )
    database, key_ring = Database.connect(testbed.settings), read_key_ring(testbed.settings)
    try:
        async with database.transaction() as connection:
            _, key = await credentials.add_api_key(connection, key_ring, "hostile", BACKEND)
            tokens = []
            for number in range(CLIENTS):
                user = await users.require_user(connection, f"user-{number}", lock=True)
                made = await credentials.add_device_token(connection, key_ring, user.id, 3600)
                tokens.append(made.secret)
    finally:
        await database.close()
    return Setup(testbed.port, key, tokens, f"/v1/uploads/{ids[0]}", SECONDS)


def _command(kind: str) -> list[str]:
    return [sys.executable, "-m", "bench.hostile_clients", kind]


def _environment(setup: Setup) -> dict[str, str]:
    return {**os.environ, "BENCH": json.dumps(asdict(setup))}


def _honest(setup: Setup) -> dict[str, Any]:
    done = subprocess.run(
        _command("honest"), env=_environment(setup), check=True, stdout=subprocess.PIPE, timeout=90
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def _hostile(kind: str, setup: Setup) -> Iterator[None]:
    with subprocess.Popen(_command(kind), env=_environment(setup)) as process:
        try:
            yield
            assert process.poll() is None, f"The hostile client {kind} ended by itself."  # noqa: S101
        finally:
            process.terminate()
