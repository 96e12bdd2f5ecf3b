"""Is PostgreSQL fit to keep the truth, and is it migrated?"""

from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.ledger.server import ServerFacts

PART = "postgres"

_LEAST_VERSION = 15
_SKEW_SECONDS = 5.0


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
