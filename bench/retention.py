"""Retention beside deliveries: how much of the delivery rate it costs on 1,000,000 old uploads.

`python -m bench.retention` fills a ledger by SQL with old delivered uploads, their records and
attempts. Then it delivers rounds of new uploads to the sandbox, in turn with and without retention,
which runs in a process of its own as in a deployment. At the end retention goes on without rest,
and the benchmark counts what is left. It takes about five minutes.
"""

import argparse
import asyncio
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import orjson
import psycopg
from pydantic import SecretStr
from sqlalchemy import text

from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.cli.local.system import command
from uplift.intake.labels import Labels
from uplift.intake.sealed import sealed
from uplift.intake.submission import parse
from uplift.key_source import read_key_ring
from uplift.ledger import accepting, migrate, users
from uplift.ledger.database import Database
from uplift.logs import configure_logs
from uplift.maintenance.retain import Retainer
from uplift.queues import UPLOADS
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxControl
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

ROWS = 1_000_000
RETAIN_SECONDS = 5.0  # as in a deployment
PAIRS = 10
ROUND = 1000
_AT_ONCE = 100_000
_GROUP = 100

_FILL = (
    """
    CREATE TEMP TABLE old ON COMMIT DROP AS
    SELECT CAST(lpad(to_hex(CAST((extract(epoch FROM now() - interval '60 days') + n) * 1000
            AS bigint)), 12, '0') || '7' || substr(md5(random()::text), 1, 19) AS uuid) AS id,
        gen_random_uuid() AS record_id
    FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n
    """,
    """
    INSERT INTO records (id, user_id, identity, versions, latest_upload_id, latest_digest)
    SELECT record_id, :user, sha256(uuid_send(record_id)), 1, id, sha256(uuid_send(id)) FROM old
    """,
    """
    INSERT INTO deliveries (record_id, destination, version, digest, sealed_receipt)
    SELECT record_id, 'oneup', 1, sha256(uuid_send(id)),
        sha256(uuid_send(id)) || sha256(uuid_send(record_id))
    FROM old
    """,
    """
    INSERT INTO uploads (id, user_id, record_id, version, queue, fhir_version, resource_type,
        digest, body_bytes, state, attempts, issues, last_response, sealed_receipt, created_at,
        updated_at, delivered_at)
    SELECT id, :user, record_id, 1, 'uploads', 'R4', 'Observation', sha256(uuid_send(id)), 1500,
        'delivered', 1, '{"total": 0, "issue": []}', 'http_201',
        sha256(uuid_send(id)) || sha256(uuid_send(record_id)), now() - interval '60 days',
        now() - interval '59 days', now() - interval '59 days'
    FROM old
    """,
    """
    INSERT INTO attempts (lease_id, upload_id, opened_at, closed_at, outcome, status_code,
        duration_ms)
    SELECT gen_random_uuid(), id, now() - interval '59 days', now() - interval '59 days',
        'stored', 201, 80
    FROM old
    """,
)


async def fill(settings: Settings, rows: int) -> None:
    """Insert uploads that were delivered 59 days ago."""
    database = Database.connect(settings)
    async with database.transaction() as connection:
        user = (await users.add_user(connection, "old", read_key_ring(settings))).id
    for first in range(1, rows + 1, _AT_ONCE):
        async with database.transaction() as connection:
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            for statement in _FILL:
                await connection.execute(
                    text(statement),
                    {"user": user, "first": first, "last": min(rows, first + _AT_ONCE - 1)}
                    if ":first" in statement
                    else {"user": user}
                    if ":user" in statement
                    else {},
                )
    await database.close()
    # Otherwise autovacuum would run during the first rounds.
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as server:
        await server.execute("VACUUM ANALYZE")
        await server.execute("CHECKPOINT")


async def accept(relay: Relay, count: int) -> list[Any]:
    """Commit new uploads, and dispatch none."""
    user = (await relay.provisioner.provision("bench"))[0]
    key = user.key(relay.key_ring)
    ids = []
    for _ in range(0, count, _GROUP):
        group = []
        for _ in range(_GROUP):
            resource = {
                "resourceType": "Observation",
                "id": secrets.token_hex(8),
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
                "subject": {"reference": "Patient/p1"},
                "valueQuantity": {"value": 72, "unit": "/min"},
                "note": [{"text": "x" * 800}],
            }
            submission = parse(orjson.dumps(resource), Labels(fhir_version="R4", source="bench"))
            group.append(sealed(submission, user, key, queue=UPLOADS))
        async with relay.database.transaction() as connection:
            kept = await accepting.keep(connection, group)
        ids += [each.id for each in kept]
    return ids


async def deliveries_a_second(relay: Relay) -> float:
    """The rate of one round."""
    ids = await accept(relay, ROUND)
    began = time.monotonic()
    # As the threads of a worker.
    await asyncio.gather(*(relay.deliverer.deliver(UPLOADS) for _ in range(4)))
    taken = time.monotonic() - began
    async with relay.database.transaction() as connection:
        delivered = await connection.scalar(
            text("SELECT count(*) FROM uploads WHERE id = ANY(:ids) AND state = 'delivered'"),
            {"ids": ids},
        )
    if delivered != ROUND:
        sys.exit(f"Only {delivered} of {ROUND} were delivered.")
    return ROUND / taken


async def counted(relay: Relay) -> dict[str, int]:
    """The numbers of old uploads and of tombstones."""
    async with relay.database.transaction() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        return {
            "uploads": await connection.scalar(
                text("SELECT count(*) FROM uploads WHERE delivered_at < now() - interval '30 days'")
            )
            or 0,
            "tombstones": await connection.scalar(text("SELECT count(*) FROM tombstones")) or 0,
        }


async def measure(settings: Settings, rows: int, environment: dict[str, str]) -> dict[str, Any]:
    """Rounds in turn; then retention of everything else, without rest."""
    figures: dict[str, list[float]] = {"without": [], "with": []}
    thinned: list[float] = []
    async with open_relay(settings) as relay:
        await deliveries_a_second(relay)  # warms pools, plans and caches
        for pair in range(PAIRS):
            # Each goes first as often as the other: the first may leave work for the second.
            for which in ("without", "with") if pair % 2 else ("with", "without"):
                before = (await counted(relay))["tombstones"]
                with retention(environment) if which == "with" else nullcontext():
                    began = time.monotonic()
                    rate = await deliveries_a_second(relay)
                    taken = time.monotonic() - began
                figures[which].append(rate)
                print(f"  {which:>7}: {rate:.0f} deliveries/s", flush=True)
                if which == "with":
                    thinned.append(((await counted(relay))["tombstones"] - before) / taken)
        begun = await counted(relay)
        began = time.monotonic()
        done = await Retainer(relay.database, settings, rest_factor=0.0).retain(seconds=3600)
        taken = time.monotonic() - began
        ended = await counted(relay)
    if ended != {"uploads": 0, "tombstones": rows} or done.thinned != begun["uploads"]:
        sys.exit(f"{rows} old uploads should have left as many tombstones: {ended}.")
    without, with_ = (statistics.median(figures[name]) for name in ("without", "with"))
    return {
        "rows": rows,
        "without": [round(rate) for rate in figures["without"]],
        "with": [round(rate) for rate in figures["with"]],
        "median_without": round(without),
        "median_with": round(with_),
        "lost_percent_of_medians": round(100 * (1 - with_ / without), 1),
        "lost_percent_median_of_pairs": round(
            100
            * (
                1
                - statistics.median(
                    one / other
                    for one, other in zip(figures["with"], figures["without"], strict=True)
                )
            ),
            1,
        ),
        "thinned_a_second_beside_deliveries": round(statistics.median(thinned)),
        "thinned_a_second_without_rest": round(begun["uploads"] / taken),
    }


@contextmanager
def retention(environment: dict[str, str]) -> Iterator[None]:
    """Run retention as in a deployment: at its usual speed, in another process."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.retention", "--retain"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
    )
    try:
        if child.stdout is not None:
            child.stdout.readline()
        yield
    finally:
        child.kill()  # between two steps or within one: both are safe
        child.wait(30)


async def _retain() -> None:
    settings = Settings()
    configure_logs(settings)
    database = Database.connect(settings)
    retainer = Retainer(database, settings)
    await retainer.retain(seconds=0.0)  # one step
    print("begun", flush=True)
    while True:
        # As in beat: a step every few seconds, then rest.
        tick = time.monotonic() + RETAIN_SECONDS
        await retainer.retain(seconds=RETAIN_SECONDS)
        await asyncio.sleep(max(0.0, tick - time.monotonic()))


@contextmanager
def sandbox() -> Iterator[SandboxControl]:
    """A simulated 1upHealth in a process of its own."""
    child = subprocess.Popen(command("sandbox", "--port", "0"), stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None  # noqa: S101  it is a pipe
    url, token = (child.stdout.readline().split()[-1] for _ in range(2))
    control = SandboxControl(url, token)
    try:
        yield control
    finally:
        control.close()
        child.terminate()
        child.wait(30)


def main(rows: int = ROWS) -> dict[str, Any]:
    """Fill, measure, print."""
    with (
        tempfile.TemporaryDirectory() as name,
        EmbeddedPostgres(Path(name)) as postgres,
        EmbeddedRedis(Path(name)) as redis,
        sandbox() as upstream,
    ):
        environment = {
            "UPLIFT_DATABASE_URL": postgres.url,
            "UPLIFT_MASTER_KEYS": KeyRing.new_entry("bench"),
            "UPLIFT_LOG_LEVEL": "error",
        }
        client = SandboxConfig()
        settings = Settings(
            database_url=SecretStr(postgres.url),
            redis_url=SecretStr(redis.url),
            master_keys=SecretStr(environment["UPLIFT_MASTER_KEYS"]),
            oneup_fhir_url=upstream.fhir_url,
            oneup_token_url=upstream.token_url,
            oneup_users_url=upstream.users_url,
            oneup_client_id=client.client_id,
            oneup_client_secret=SecretStr(client.client_secret),
            oneup_keeps_ids=True,
            # The lighter a delivery is for its worker, the more of it is PostgreSQL's work.
            second_opinion=0.0,
            log_level="error",
        )
        configure_logs(settings)
        figures = asyncio.run(_measured(settings, rows, environment))
    print(f"Retention beside deliveries, {rows} old uploads, {PAIRS} pairs of {ROUND} deliveries")
    for figure, value in figures.items():
        print(f"  {figure}: {value}")
    return figures


async def _measured(settings: Settings, rows: int, environment: dict[str, str]) -> dict[str, Any]:
    database = Database.connect(settings)
    await migrate.upgrade(database)
    await database.close()
    began = time.monotonic()
    await fill(settings, rows)
    print(f"Filled in {time.monotonic() - began:.0f} s")
    return await measure(settings, rows, environment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--retain", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.retain:
        asyncio.run(_retain())
    else:
        main(given.rows)
