"""Accepted a second: one at a time against the plain endpoint, batches against a bare INSERT.

Single uploads: `CONNECTIONS` keep-alive clients in a process of their own post distinct resources
of 2 KB. No worker runs, so the door has the machine for itself, in all three cases.
Batches: one request of NDJSON after the other, from its first byte sent to the whole answer.
"""

import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis
from uuid_utils.compat import uuid7

from bench.baseline_plain import Plain
from bench.figures import Figure, Target
from bench.load import load
from bench.plan import Plan
from bench.resources import bodies
from bench.testbed import Testbed, ground, upstream
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
        # Without beat: nothing is swept, and nothing rung for again.
        ground(folder / "uplift", stand_in, processes=("web",)) as stood,
    ):
        plain = Plain(stood)
        try:
            return [*_singles(stood, plain, plan), *_batches(stood, plan)]
        finally:
            plain.close()


def _singles(stood: Testbed, plain: Plain, plan: Plan) -> list[Figure]:
    inline, threads = plain.start_api(in_threads=False), plain.start_api(in_threads=True)
    places = {
        "uplift": (stood.port, "/v1/uploads", "web"),
        "inline": (inline, "/uploads", f"plain-{inline}"),
        "threads": (threads, "/uploads", f"plain-{threads}"),
        "nothing": (inline, "/nothing", f"plain-{inline}"),
    }
    seconds = SECONDS * plan.scale

    def measure(name: str, seconds: float) -> dict[str, float]:
        port, path, process = places[name]
        _clear(stood, plain)
        before = stood.cpu_seconds(process), stood.cpu_seconds("postgres")
        found = load(
            port,
            path,
            stood.label(),
            stood.key,
            seconds=seconds,
            connections=CONNECTIONS,
            users=50,
        )
        return {
            "per_second": found.per_second,
            "p50": found.p50,
            "p99": found.p99,
            "cpu": (stood.cpu_seconds(process) - before[0]) / found.accepted * 1000,
            "postgres_cpu": (stood.cpu_seconds("postgres") - before[1]) / found.accepted * 1000,
        }

    tried = {name: measure(name, max(seconds / 2, 0.5))["per_second"] for name in places}
    usual = max(("inline", "threads"), key=tried.__getitem__)
    rounds = [
        {name: measure(name, seconds) for name in ("uplift", usual, "nothing")}
        for _ in range(plan.rounds)
    ]

    def all_of(name: str, figure: str) -> tuple[float, ...]:
        return tuple(each[name][figure] for each in rounds)

    where = "in threads" if usual == "threads" else "in the loop"
    plain_name = f"plain endpoint, .delay() {where}"
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
            (usual, plain_name, Target(1.5)),
            ("nothing", "the same doing nothing", Target(0.25)),
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
        for name, against in ((usual, plain_name), ("nothing", "the same doing nothing"))
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
            against=plain_name,
            ours=all_of("uplift", figure),
            theirs=all_of(usual, figure),
        )
        for what, figure in (
            ("CPU an upload, API", "cpu"),
            ("CPU an upload, PostgreSQL", "postgres_cpu"),
        )
    ]
    return figures


def _clear(stood: Testbed, plain: Plain) -> None:
    """Each round begins with the same: no uploads, no messages."""
    stood.ledger.execute("TRUNCATE uploads, records, batches, batch_lines, attempts CASCADE")
    plain.clear()
    with redis.Redis.from_url(stood.system.environment["UPLIFT_REDIS_URL"]) as server:
        server.delete("uploads", "bulk")


def _batches(stood: Testbed, plan: Plan) -> list[Figure]:
    lines = plan.of(LINES)
    results: dict[str, list[float]] = {"uplift": [], "executemany": [], "copy": []}
    for _ in range(plan.rounds):
        results["uplift"].append(_post_batch(stood, lines))
        for name in ("executemany", "copy"):
            label = stood.label()
            new = stood.seal(("R4", type_, body) for type_, body in bodies(label, lines))
            begun = time.perf_counter()
            _insert(stood.system.environment["UPLIFT_DATABASE_URL"], new, copy=name == "copy")
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
            ("executemany", "bare INSERT of sealed rows, executemany", Target(0.5)),
            ("copy", "bare COPY of sealed rows", None),
        )
    ]


def _post_batch(stood: Testbed, lines: int) -> float:
    label = stood.label()
    content = b"\n".join(
        b'{"fhirVersion":"R4","source":"bench","resource":' + body + b"}"
        for _, body in bodies(label, lines)
    )
    begun = time.perf_counter()
    response = httpx.post(
        f"{stood.system.api_url}/v1/batches?user=user-1",
        content=content,
        headers={
            "Authorization": f"Bearer {stood.key}",
            "Content-Type": "application/x-ndjson",
        },
        timeout=120,
    )
    seconds = time.perf_counter() - begun
    counts: dict[str, Any] = response.json() if response.status_code == httpx.codes.ACCEPTED else {}
    if counts.get("accepted") != lines:
        raise AssertionError(f"A batch was answered {response.status_code}: {response.text[-500:]}")
    return lines / seconds


def _insert(url: str, new: list[NewUpload], *, copy: bool) -> None:
    """The rows of new uploads and of their records, a thousand in a transaction."""
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
