"""What one person's backlog costs others, and what a claim costs with a million waiting.

Newcomers, each with one upload, arrive evenly for a while: once alone, and once while one person
has 100,000 uploads waiting in the same queue. Then claims of 100 uploads are timed, and rolled
back, with 1,000,000 waiting of 10,000 people: at the front, and of named ids, as claims were
before there was fair queueing. The plan of the first is printed, and is in the JSON.
"""

import asyncio
import statistics
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from psycopg import AsyncRawCursor
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.figures import Figure, Target, percentile
from bench.plan import Plan
from bench.resources import bodies
from bench.sent_statements import sent_by
from bench.testbed import Person, Testbed, open_testbed, upstream
from uplift.ledger import leases
from uplift.ledger.database import Database, driver_of
from uplift.ledger.due import due_among, front
from uplift.queues import UPLOADS

BACKLOG = 100_000
NEWCOMERS = 1000
SECONDS = 60.0
WAITING = 1_000_000
PEOPLE = 10_000
_IN_FLIGHT = 100  # the default: a newcomer waits for what is in flight, too
_CLAIM = 100
_CLAIMS = 30
_UPSTREAM_MS = 20


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure the newcomers' waits, then the claims."""
    with upstream(folder) as stand_in, open_testbed(folder / "uplift", stand_in) as testbed:
        worker = testbed.start_worker("worker", max_in_flight=_IN_FLIGHT)
        testbed.deliver(200)  # imports and schemas
        stand_in.reset(_UPSTREAM_MS)
        newcomers = testbed.add_people(plan.of(NEWCOMERS))
        alone = [_p95(testbed, newcomers, plan) for _ in range(plan.rounds)]
        backlog = testbed.add_people(1)
        label = testbed.label()
        resources = (("R4", type_, body) for type_, body in bodies(label, plan.of(BACKLOG)))
        testbed.put_in(resources, people=backlog)
        beside = [_p95(testbed, newcomers, plan) for _ in range(plan.rounds)]
        left = testbed.one("SELECT count(*) FROM uploads WHERE state = 'queued'")
        worker.stop()
        testbed.ledger.execute("TRUNCATE uploads CASCADE")
        _fill(testbed, waiting=plan.of(WAITING), people=plan.of(PEOPLE))
        at_front, named, plan_of_front = asyncio.run(_claims(testbed))
    print(plan_of_front)
    both = list(zip(beside, alone, strict=True))
    return [
        Figure(
            section="fairness",
            what=f"newcomers' p95 from accepted to delivered, beyond that without the"
            f" {plan.of(BACKLOG):,} of one person, of which {left:,} were left",
            unit="s",
            against="that without",
            ours=tuple(max(0.0, with_ - without) for with_, without in both),
            theirs=tuple(without for _, without in both),
            target=Target(2.0, of="ours", bound="maximum"),
        ),
        Figure(
            section="fairness",
            what=f"claim of {_CLAIM} with {plan.of(WAITING):,} waiting",
            unit="ms",
            against="claim of named ids",
            ours=(at_front * 1000,),
            theirs=(named * 1000,),
            target=Target(1.2, bound="maximum"),
            more={"plan": plan_of_front.splitlines()},
        ),
    ]


def _p95(testbed: Testbed, newcomers: list[Person], plan: Plan) -> float:
    """Let each of them bring one upload; the 95th percentile of the seconds to delivered."""
    label, seconds = testbed.label(), SECONDS * plan.scale
    resources = (("R4", type_, body) for type_, body in bodies(label, len(newcomers)))
    ids = testbed.trickle(testbed.seal(resources, people=newcomers), seconds)
    testbed.wait_recorded(ids, 300.0)
    rows = testbed.ledger.execute(
        "SELECT extract(epoch FROM delivered_at - created_at)::float8 FROM uploads"
        " WHERE id = ANY(%s)",
        [ids],
    )
    return percentile([float(str(row[0])) for row in rows], 95)


_FILL = """
    WITH someone AS (
        SELECT wrapped_key, master_key_id FROM users LIMIT 1
    )
    INSERT INTO users (id, app_user_id, wrapped_key, master_key_id, pseudonym)
    SELECT gen_random_uuid(), 'filled-' || n, wrapped_key, master_key_id, gen_random_uuid()
    FROM someone, generate_series(1, {people}) AS n;
    CREATE TEMPORARY TABLE made AS
    SELECT gen_random_uuid() AS record_id, u.id AS user_id, n / {people} + 1 AS turn
    FROM generate_series(0, {waiting} - 1) AS n
    JOIN (
        SELECT id, row_number() OVER () AS number FROM users WHERE app_user_id LIKE 'filled-%'
    ) AS u ON u.number = n % {people} + 1;
    INSERT INTO records (id, user_id, identity, versions)
    SELECT record_id, user_id, uuid_send(record_id), 1 FROM made;
    INSERT INTO uploads (id, user_id, record_id, version, queue, fhir_version, resource_type,
        digest, body_bytes, sealed_body, state, reason, next_attempt_at, finish_tag)
    SELECT gen_random_uuid(), user_id, record_id, 1, 'uploads', 'R4', 'Observation', '', 1000,
        decode(repeat('00', 1000), 'hex'), 'queued', 'new', now(), turn
    FROM made;
    DROP TABLE made;
"""


def _fill(testbed: Testbed, *, waiting: int, people: int) -> None:
    with testbed.ledger.transaction():
        testbed.ledger.execute("SET LOCAL session_replication_role = replica")
        testbed.ledger.execute(_FILL.format(waiting=waiting, people=people))
    testbed.ledger.execute("VACUUM (ANALYZE) uploads, records, users")


class _RolledBackError(Exception):
    pass


async def _claims(testbed: Testbed) -> tuple[float, float, str]:
    """The median seconds of a claim at the front, and of one of named ids; the first one's plan."""
    database = Database.connect(testbed.settings)
    times: tuple[list[float], list[float]] = ([], [])
    try:
        async with database.reading() as connection:
            found = await connection.scalars(
                text("SELECT id FROM uploads WHERE state = 'queued' LIMIT :limit"),
                {"limit": _CLAIM},
            )
            ids = list(found)
        for _ in range(_CLAIMS):
            for side, into in enumerate(times):
                with suppress(_RolledBackError):
                    async with database.transaction() as connection:
                        into.append(await _claim(connection, ids if side else None))
                        raise _RolledBackError
        plan = await _plan(database)
    finally:
        await database.close()
    return statistics.median(times[0]), statistics.median(times[1]), plan


async def _plan(database: Database) -> str:
    """How PostgreSQL finds what is claimed next."""
    async with database.transaction() as connection:
        with sent_by(connection) as sent:
            await front(connection, UPLOADS, "oneup", limit=_CLAIM)
        statement, parameters = sent[0]
        raw = AsyncRawCursor(driver_of(connection))
        lines = await raw.execute(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters)
        return "\n".join(line for (line,) in await lines.fetchall())


async def _claim(connection: AsyncConnection, ids: list[UUID] | None) -> float:
    began = time.perf_counter()
    if ids is None:
        due = (await front(connection, UPLOADS, "oneup", limit=_CLAIM)).due
    else:
        due = await due_among(connection, ids)
    claims = await leases.lease(
        connection,
        due,
        since=time.monotonic(),
        attempt_seconds=60.0,
        lease_seconds=120.0,
        give_up_seconds=3600.0,
    )
    if len(claims) != _CLAIM:
        raise AssertionError(f"{len(claims)} were claimed.")
    return time.perf_counter() - began
