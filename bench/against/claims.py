"""What a claim costs with a million waiting, in this tree and in a commit.

Each side fills a ledger of its own and claims by its own code (`claims_of_tree`); a claim is rolled
back. The rounds alternate. Before there was fair queueing, claims were of named ids.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.against.judge import Comparison
from bench.against.side import Side
from bench.plan import Plan

WAITING = 1_000_000
PEOPLE = 10_000
_CLAIM = 100
_CLAIMS = 20  # in a round
_SCRIPT = Path(__file__).with_name("claims_of_tree.py")

# `{column}` and `{value}` are what a tree with fair queueing has in addition.
_FILL = """
    INSERT INTO users (id, app_user_id, wrapped_key, master_key_id, pseudonym)
    SELECT gen_random_uuid(), 'filled-' || n, someone.wrapped_key, someone.master_key_id,
        gen_random_uuid()
    FROM (SELECT wrapped_key, master_key_id FROM users LIMIT 1) AS someone,
        generate_series(1, {people}) AS n;
    CREATE TEMPORARY TABLE made AS
    SELECT gen_random_uuid() AS record_id, u.id AS user_id, n / {people} + 1 AS turn
    FROM generate_series(0, {waiting} - 1) AS n
    JOIN (
        SELECT id, row_number() OVER () AS number FROM users WHERE app_user_id LIKE 'filled-%'
    ) AS u ON u.number = n % {people} + 1;
    INSERT INTO records (id, user_id, identity, versions)
    SELECT record_id, user_id, uuid_send(record_id), 1 FROM made;
    INSERT INTO uploads (id, user_id, record_id, version, queue, fhir_version, resource_type,
        digest, body_bytes, sealed_body, state, reason, next_attempt_at {column})
    SELECT gen_random_uuid(), user_id, record_id, 1, 'uploads', 'R4', 'Observation', '', 1000,
        decode(repeat('00', 1000), 'hex'), 'queued', 'new', now() {value}
    FROM made;
    DROP TABLE made;
"""


def compare_claims(sides: list[Side], plan: Plan, say: Callable[[str], None]) -> list[Comparison]:
    """Claims of 100. The commit is measured twice in each round, on the same ledger."""
    before, now, _ = sides
    for side in (before, now):
        say(f"claims: {plan.of(WAITING):,} waiting of {plan.of(PEOPLE):,} people, {side.name}")
        _fill(side, waiting=plan.of(WAITING), people=plan.of(PEOPLE))
    times: dict[str, list[float]] = {"before": [], "now": [], "again": []}
    for number in range(plan.rounds):
        say(f"claims: round {number + 1} of {plan.rounds}")
        for name, side in (("before", before), ("now", now), ("again", before)):
            times[name].append(_median_ms(side))
        say(", ".join(f"{name} {found[-1]:.1f} ms" for name, found in times.items()))
    for side in (before, now):
        side.clear()
        # Their keys are those of another user, which a worker would refuse.
        side.ledger.execute("DELETE FROM users WHERE app_user_id LIKE 'filled-%'")
    return [
        Comparison(
            section="claims",
            what=f"claim of {_CLAIM} with {plan.of(WAITING):,} waiting",
            unit="ms",
            less_is_faster=True,
            **{name: tuple(found) for name, found in times.items()},
        )
    ]


def _fill(side: Side, *, waiting: int, people: int) -> None:
    has_tags = side.ledger.execute(
        "SELECT FROM information_schema.columns WHERE column_name = 'finish_tag'"
    ).fetchone()
    column, value = (", finish_tag", ", turn") if has_tags is not None else ("", "")
    with side.ledger.transaction():
        # An index is made in less time than it takes to add each row to it.
        dropped = side.ledger.execute(
            "SELECT i.indexname, i.indexdef FROM pg_indexes AS i WHERE i.tablename = 'uploads'"
            " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname = i.indexname)"
        ).fetchall()
        for name, _ in dropped:
            side.ledger.execute(f"DROP INDEX {name}")
        side.ledger.execute("SET LOCAL session_replication_role = replica")
        side.ledger.execute(
            _FILL.format(waiting=waiting, people=people, column=column, value=value)
        )
        for _, definition in dropped:
            side.ledger.execute(definition)
    side.ledger.execute("VACUUM (ANALYZE) uploads, records, users")


def _median_ms(side: Side) -> float:
    done = subprocess.run(
        [*side.python, str(_SCRIPT), str(_CLAIM), str(_CLAIMS)],
        env={**os.environ, **side.environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(json.loads(done.stdout))
