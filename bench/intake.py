"""Accepted a second: single uploads against baseline_plain, batches against an INSERT alone.

Single uploads: `CONNECTIONS` keep-alive clients in a process of their own post distinct resources
of 2 KB. No worker runs, so the API has the machine to itself, in all three cases.
Batches: one request of NDJSON after another, from the first byte sent to the whole response.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis
from uuid_utils.compat import uuid7

from bench.baseline_plain import Baseline
from bench.figures import Figure, Target
from bench.load import load
from bench.plan import Plan
from bench.resources import bodies
from bench.testbed import API, Testbed, open_testbed, upstream
from uplift.ledger.new_uploads import NewUpload

CONNECTIONS = 32
SECONDS = 4.0
LINES = 5000
_INSERT_GROUP = 1000

_RECORD = "INSERT INTO records (id, user_id, identity, versions) VALUES (%s, %s, %s, 1)"
_UPLOAD_COLUMNS = (
    "id, user_id, record_id, version, queue, fhir_version, resource_type, digest, body_bytes,"
    " sealed_body, state, reason, next_attempt_at"
)
_UPLOAD = (
    f"INSERT INTO uploads ({_UPLOAD_COLUMNS})"  # noqa: S608  constants
    " VALUES (%s, %s, %s, 1, %s, %s, %s, %s, %s, %s, 'queued', 'new', now())"
)


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure singles, then batches."""
    with (
        upstream(folder) as stand_in,
        # Without beat, no sweep runs.
        open_testbed(folder / "uplift", stand_in, processes=(API,)) as testbed,
    ):
        baseline = Baseline(testbed)
        try:
            return [*_singles(testbed, baseline, plan), *_batches(testbed, plan)]
        finally:
            baseline.close()


def _singles(testbed: Testbed, baseline: Baseline, plan: Plan) -> list[Figure]:
    inline, threads = baseline.start_api(in_threads=False), baseline.start_api(in_threads=True)
    places = {
        "uplift": (testbed.port, "/v1/uploads", API),
        "inline": (inline, "/uploads", f"baseline_plain-{inline}"),
        "threads": (threads, "/uploads", f"baseline_plain-{threads}"),
        "nothing": (inline, "/nothing", f"baseline_plain-{inline}"),
    }
    seconds = SECONDS * plan.scale

    def measure(name: str, seconds: float) -> dict[str, float]:
        port, path, process = places[name]
        clear(testbed, baseline)
        before = testbed.cpu_seconds(process), testbed.cpu_seconds("postgres")
        found = load(
            port,
            path,
            testbed.label(),
            testbed.key,
            seconds=seconds,
            connections=CONNECTIONS,
            users=50,
        )
        return {
            "per_second": found.per_second,
            "p50": found.p50,
            "p99": found.p99,
            "cpu": (testbed.cpu_seconds(process) - before[0]) / found.accepted * 1000,
            "postgres_cpu": (testbed.cpu_seconds("postgres") - before[1]) / found.accepted * 1000,
        }

    tried = {name: measure(name, max(seconds / 2, 0.5))["per_second"] for name in places}
    usual = max(("inline", "threads"), key=tried.__getitem__)
    rounds = [
        {name: measure(name, seconds) for name in ("uplift", usual, "nothing")}
        for _ in range(plan.rounds)
    ]

    def all_of(name: str, figure: str) -> tuple[float, ...]:
        return tuple(each[name][figure] for each in rounds)

    where = "in threads" if usual == "threads" else "in the event loop"
    against_plain = f"baseline_plain, .delay() {where}"
    figures = [
        Figure(
            section="intake",
            what="accepted/s, single",
            unit="/s",
            against=against,
            ours=all_of("uplift", "per_second"),
            theirs=all_of(name, "per_second"),
            target=target,
        )
        for name, against, target in (
            (usual, against_plain, Target(1.5)),
            ("nothing", "the same, doing nothing", Target(0.25)),
        )
    ]
    figures += [
        Figure(
            section="intake",
            what=what,
            unit="ms",
            against=against,
            ours=all_of("uplift", figure),
            theirs=all_of(name, figure),
        )
        for name, against in ((usual, against_plain), ("nothing", "the same, doing nothing"))
        for what, figure in (
            (f"p50, {CONNECTIONS} clients", "p50"),
            (f"p99, {CONNECTIONS} clients", "p99"),
        )
    ]
    figures += [
        Figure(
            section="intake",
            what=what,
            unit="ms",
            against=against_plain,
            ours=all_of("uplift", figure),
            theirs=all_of(usual, figure),
        )
        for what, figure in (
            ("CPU per upload, API", "cpu"),
            ("CPU per upload, PostgreSQL", "postgres_cpu"),
        )
    ]
    return figures


def clear(testbed: Testbed, baseline: Baseline) -> None:
    """Delete uploads and messages: every round begins with none."""
    testbed.ledger.execute("TRUNCATE uploads, records, batches, batch_lines, attempts CASCADE")
    baseline.clear()
    with redis.Redis.from_url(testbed.system.environment["UPLIFT_REDIS_URL"]) as server:
        server.delete("uploads", "bulk")


def _batches(testbed: Testbed, plan: Plan) -> list[Figure]:
    lines = plan.of(LINES)
    results: dict[str, list[float]] = {"uplift": [], "executemany": [], "copy": []}
    for _ in range(plan.rounds):
        results["uplift"].append(
            post_batch(testbed.system.api_url, testbed.key, bodies(testbed.label(), lines))
        )
        for name in ("executemany", "copy"):
            label = testbed.label()
            new = testbed.seal(("R4", type_, body) for type_, body in bodies(label, lines))
            begun = time.perf_counter()
            _insert(testbed.system.environment["UPLIFT_DATABASE_URL"], new, copy=name == "copy")
            results[name].append(lines / (time.perf_counter() - begun))
    return [
        Figure(
            section="intake",
            what=f"records/s, batch of {lines}",
            unit="/s",
            against=against,
            ours=tuple(results["uplift"]),
            theirs=tuple(results[name]),
            target=target,
        )
        for name, against, target in (
            ("executemany", "INSERT of sealed rows, executemany", Target(0.6)),
            ("copy", "COPY of sealed rows", None),
        )
    ]


def post_batch(
    api_url: str,
    key: str,
    resources: Iterable[tuple[str, bytes]],
    *,
    user: str = "user-1",
    path: str = "/v1/batches",
) -> float:
    """Post the resources, as type and bytes, as one batch; the records accepted a second.

    Raises AssertionError unless every record is accepted.
    """
    lines = [
        b'{"fhirVersion":"R4","source":"bench","resource":' + body + b"}" for _, body in resources
    ]
    content = b"\n".join(lines)
    begun = time.perf_counter()
    response = httpx.post(
        f"{api_url}{path}",
        params={"user": user},
        content=content,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"},
        timeout=120,
    )
    seconds = time.perf_counter() - begun
    counts: dict[str, Any] = response.json() if response.status_code == httpx.codes.ACCEPTED else {}
    if counts.get("accepted") != len(lines):
        raise AssertionError(f"A batch got {response.status_code}: {response.text[-500:]}")
    return len(lines) / seconds


def _insert(url: str, new: list[NewUpload], *, copy: bool) -> None:
    """Insert the rows of new uploads and of their records, 1,000 in each transaction."""
    with psycopg.connect(url) as connection:
        for start in range(0, len(new), _INSERT_GROUP):
            group = [(uuid7(), upload) for upload in new[start : start + _INSERT_GROUP]]
            records = [(id_, upload.user_id, upload.identity) for id_, upload in group]
            uploads = [
                (
                    *(upload.id, upload.user_id, id_, upload.queue, upload.fhir_version),
                    *(upload.resource_type, upload.digest, upload.body_bytes, upload.sealed_body),
                )
                for id_, upload in group
            ]
            cursor = connection.cursor()
            if not copy:
                cursor.executemany(_RECORD, records)
                cursor.executemany(_UPLOAD, uploads)
            else:
                with cursor.copy("COPY records (id, user_id, identity) FROM STDIN") as rows:
                    for record in records:
                        rows.write_row(record)
                with cursor.copy(f"COPY uploads ({_UPLOAD_COLUMNS}) FROM STDIN") as rows:
                    for row in uploads:
                        rows.write_row((*row[:3], 1, *row[3:], "queued", "new", "now"))
            connection.commit()
