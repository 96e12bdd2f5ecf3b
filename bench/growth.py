"""Whether Uplift stays as fast with a large ledger.

Two ledgers on one server, each with its own processes: an empty one, and one with 1,000,000
delivered uploads, with their records and attempts, and 100,000 queued ones. Half of these wait for
their next attempt; half are due on the `bulk` queue, for which no worker runs here.
"""

from contextlib import ExitStack
from pathlib import Path

import psycopg

from bench.baseline_plain import beside
from bench.delivery import IN_FLIGHT
from bench.figures import Figure, Target
from bench.load import load
from bench.plan import Plan
from bench.testbed import Testbed, open_testbed, upstream
from bench.upstream import rate

DELIVERED = 1_000_000
QUEUED = 100_000
UPLOADS = 4000
SECONDS = 4.0
_BODY_BYTES = 2048


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Fill one ledger, then measure both in turn."""
    with ExitStack() as stack:
        stand_in = stack.enter_context(upstream(folder))
        empty = stack.enter_context(open_testbed(folder / "empty", stand_in))
        urls = {
            "UPLIFT_DATABASE_URL": beside(empty.superuser_url, "grown"),
            "UPLIFT_REDIS_URL": (
                empty.system.environment["UPLIFT_REDIS_URL"].rpartition("/")[0] + "/1"
            ),
        }
        grown = stack.enter_context(open_testbed(folder / "grown", stand_in, settings=urls))
        fill(grown.ledger, delivered=plan.of(DELIVERED), queued=plan.of(QUEUED))
        sides = (grown, empty)
        for testbed in sides:
            testbed.start_worker("worker", max_in_flight=IN_FLIGHT)
            testbed.deliver(300)
        delivered: list[list[float]] = [[], []]
        accepted: list[list[float]] = [[], []]
        for _ in range(plan.rounds):
            for testbed, rates in zip(sides, delivered, strict=True):
                testbed.upstream_ms = 0
                rates.append(rate(testbed.deliver(plan.of(UPLOADS))))
        for testbed in sides:
            # Only the API runs: accepted uploads stay queued.
            testbed.system.processes["worker"].stop()
        for _ in range(plan.rounds):
            for testbed, rates in zip(sides, accepted, strict=True):
                rates.append(_intake(testbed, SECONDS * plan.scale))
        return [
            Figure(
                section="growth",
                what=f"{what} with {plan.of(DELIVERED):,} delivered, {plan.of(QUEUED):,} queued",
                unit="/s",
                against="with none",
                ours=tuple(rates[0]),
                theirs=tuple(rates[1]),
                target=Target(0.9),
            )
            for what, rates in (
                ("delivered/s, upstream 0 ms,", delivered),
                ("accepted/s", accepted),
            )
        ]


def _intake(testbed: Testbed, seconds: float) -> float:
    found = load(
        testbed.port,
        "/v1/uploads",
        testbed.label(),
        testbed.key,
        seconds=seconds,
        connections=32,
        users=50,
    )
    return found.per_second


_RECORDS = """
    CREATE TEMPORARY TABLE made AS
    SELECT gen_random_uuid() AS record_id, gen_random_uuid() AS upload_id, u.id AS user_id,
        sha256(uuid_send(gen_random_uuid())) AS digest, n
    FROM generate_series(1, {count}) AS n
    JOIN (SELECT id, row_number() OVER () AS number, count(*) OVER () AS total FROM users) AS u
        ON u.number = n % u.total + 1;
    INSERT INTO records (id, user_id, identity, versions, latest_upload_id, latest_digest)
    SELECT record_id, user_id, digest, 1, upload_id, digest FROM made;
    INSERT INTO deliveries (record_id, destination, version, digest)
    SELECT record_id, 'oneup', 1, digest FROM made WHERE {delivered} = 1;
"""

_DELIVERED = """
    INSERT INTO uploads (id, user_id, record_id, version, queue, fhir_version, resource_type,
        digest, body_bytes, state, attempts, last_response, delivered_at, created_at, updated_at)
    SELECT upload_id, user_id, record_id, 1, 'uploads', 'R4', 'Observation', digest, {bytes},
        'delivered', 1, 'http_201', now(), now(), now()
    FROM made;
    INSERT INTO attempts (lease_id, upload_id, closed_at, outcome, status_code, duration_ms)
    SELECT gen_random_uuid(), upload_id, now(), 'stored', 201, 200 FROM made;
    DROP TABLE made;
"""

_QUEUED = """
    INSERT INTO uploads (id, user_id, record_id, version, queue, fhir_version, resource_type,
        digest, body_bytes, sealed_body, state, reason, attempts, next_attempt_at, give_up_at)
    SELECT upload_id, user_id, record_id, 1, CASE n % 2 WHEN 0 THEN 'uploads' ELSE 'bulk' END,
        'R4', 'Observation', digest, {bytes}, decode(repeat('00', {bytes}), 'hex'),
        'queued', 'retry', 1, now() + CASE n % 2 WHEN 0 THEN interval '1 hour' ELSE '0' END,
        now() + interval '72 hours'
    FROM made;
    DROP TABLE made;
"""


def fill(
    connection: psycopg.Connection[tuple[object, ...]], *, delivered: int, queued: int
) -> None:
    """Insert delivered and queued uploads, with records and attempts, for all users."""
    values = {"bytes": _BODY_BYTES}
    with connection.transaction():
        # Their references are right, and a check of each would take minutes.
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(_RECORDS.format(count=delivered, delivered=1))
        connection.execute(_DELIVERED.format(**values))
        connection.execute(_RECORDS.format(count=queued, delivered=0))
        connection.execute(_QUEUED.format(**values))
    connection.execute("VACUUM (ANALYZE) uploads, records, attempts")
