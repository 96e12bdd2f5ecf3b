"""Is PostgreSQL fit to keep the truth, is it migrated, and is its work taken up?"""

from collections.abc import Iterator

from relay.doctor.findings import Finding, fail, ok, warn
from relay.ledger.overdue import Overdue
from relay.ledger.server import ServerFacts

PART = "postgres"
WORK = "work"

_LEAST_VERSION = 15
_SKEW_SECONDS = 5.0
# The sweep rings within seconds; what is due for longer waits for workers.
_LATE_SECONDS = 60.0
_VERY_LATE_SECONDS = 3600.0
_ABANDONED_SECONDS = 60.0


def judge_server(facts: ServerFacts) -> list[Finding]:
    """Its version, and whether a commit of it is durable."""
    found: list[Finding] = []
    if facts.version < _LEAST_VERSION * 10_000:
        found.append(
            fail(
                PART,
                f"version {facts.version_text}",
                f"Upgrade it: Uplift needs PostgreSQL {_LEAST_VERSION} or newer.",
            )
        )
    else:
        found.append(ok(PART, f"version {facts.version_text}"))
    lax = [
        f"{name} = off"
        for name, off in (
            ("fsync", not facts.fsync),
            ("synchronous_commit", facts.synchronous_commit == "off"),
        )
        if off
    ]
    if lax:
        found.append(
            fail(
                PART,
                f"{', '.join(lax)}: what was answered 202 may be lost when the server dies",
                "Set it to on in postgresql.conf, or for Uplift's role.",
            )
        )
    return found


def judge_revision(at: str | None, head: str | None) -> Finding:
    """Whether the schema is this version's."""
    if at == head:
        return ok(PART, f"migrated, revision {at}")
    return fail(
        PART,
        f"the ledger is at revision {at or 'none'}, this version of Uplift needs {head}",
        "Run `uplift migrate`; if the ledger is the newer one, deploy the newer Uplift.",
    )


def judge_clock(skew: float) -> Finding:
    """`skew` is how far PostgreSQL's clock is before this machine's, in seconds."""
    if abs(skew) <= _SKEW_SECONDS:
        return ok(PART, f"clocks agree within {_SKEW_SECONDS:.0f} s")
    return warn(
        PART,
        f"its clock is {abs(skew):.0f} s {'before' if skew > 0 else 'behind'} this machine's",
        "Run NTP on both. Uplift goes by PostgreSQL's clock; logs go by the machine's.",
    )


def judge_work(facts: Overdue) -> list[Finding]:
    """Whether somebody is at work."""
    return list(_work(facts))


def _work(facts: Overdue) -> Iterator[Finding]:
    if facts.abandoned_seconds > _ABANDONED_SECONDS:
        yield fail(
            WORK,
            f"{facts.abandoned} upload(s) were left by their worker, the first"
            f" {facts.abandoned_seconds:.0f} s ago, and are not swept up",
            "Start or restart the process `beat`: nothing is retried without it.",
        )
    if facts.due_seconds <= _LATE_SECONDS:
        yield ok(WORK, f"{facts.due} upload(s) due, none for longer than {_LATE_SECONDS:.0f} s")
        return
    what = f"{facts.due} upload(s) due, the oldest for {facts.due_seconds:.0f} s"
    do = (
        "Is a worker alive (above)? Are they many? Start more `worker` and `bulk` processes."
        " What waits for the same record's older version is among them."
    )
    yield (fail if facts.due_seconds > _VERY_LATE_SECONDS else warn)(WORK, what, do)
