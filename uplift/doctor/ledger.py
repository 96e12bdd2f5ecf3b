"""Does PostgreSQL keep what it commits, and does it have the right schema?"""

from uplift.clocks import MAX_APART_SECONDS
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.ledger.database import CommitUnknown
from uplift.ledger.revisions import Revisions
from uplift.ledger.roles import Rights
from uplift.ledger.server import ServerFacts, Trouble, trouble

PART = "postgres"

_MIN_VERSION = 15
_MAX_SKEW_SECONDS = 5.0


def judge_server(facts: ServerFacts) -> list[Finding]:
    """Its version, and whether its commits are durable."""
    found: list[Finding] = []
    if facts.version < _MIN_VERSION * 10_000:
        found.append(
            fail(
                PART,
                f"version {facts.version_text}",
                f"Upgrade it: Uplift needs PostgreSQL {_MIN_VERSION} or newer.",
            )
        )
    else:
        found.append(ok(PART, f"version {facts.version_text}"))
    unsafe = [
        f"{name} = off"
        for name, off in (
            ("fsync", not facts.fsync),
            ("synchronous_commit", facts.synchronous_commit == "off"),
        )
        if off
    ]
    if unsafe:
        found.append(
            fail(
                PART,
                f"{', '.join(unsafe)}: accepted uploads (202) may be lost if the server crashes",
                "Set it to on, in postgresql.conf or for Uplift's role.",
            )
        )
    return found


_TROUBLES: dict[Trouble, tuple[str, str]] = {
    Trouble.READ_ONLY: (
        "is read-only: a standby, or its disk is full",
        (
            "Promote it, or correct UPLIFT_DATABASE_URL: several hosts may be in it"
            " (?host=a:5432&host=b:5432). Processes find the new primary by themselves."
        ),
    ),
    Trouble.NO_RIGHTS: (
        "does not permit this role what it needs",
        (
            "Run `uplift migrate`: it gives the roles their rights, also after a restore. The login"
            " of UPLIFT_DATABASE_URL must be a member of uplift_app."
        ),
    ),
    Trouble.NO_LOGIN: (
        "does not let this role log in",
        "Check the role and the password in UPLIFT_DATABASE_URL, and the server's pg_hba.conf.",
    ),
    Trouble.NO_CONNECTION_LEFT: (
        "has no connection left",
        "Raise max_connections, or lower UPLIFT_DATABASE_CONNECTIONS.",
    ),
    Trouble.DISK_FULL: ("has no space left on its disk", "Make room there."),
    Trouble.TOO_SLOW: (
        "takes too long: somebody locks a table, or it has too much to do",
        (
            "`SELECT pid, state, query FROM pg_stat_activity WHERE pid IN (SELECT"
            " unnest(pg_blocking_pids(pid)) FROM pg_stat_activity)` shows who locks something."
        ),
    ),
}


def not_working(error: Exception, where: str) -> Finding:
    """PostgreSQL there does not work, or takes no writes."""
    found = trouble(error)
    if found is not None:
        what, do = _TROUBLES[found]
    elif isinstance(error, CommitUnknown):
        what = "does not confirm a commit"
        do = "Check its disk, and its synchronous standbys (`SELECT * FROM pg_stat_replication`)."
    else:
        what = f"does not work ({type(error).__name__})"
        do = (
            "Check UPLIFT_DATABASE_URL. Check that the server runs, and that this machine can reach"
            " it."
        )
    return fail(PART, f"PostgreSQL at {where} {what}", f"{do} Meanwhile the API answers 503.")


def judge_revision(revisions: Revisions) -> Finding:
    """Whether this version of Uplift works on the ledger's schema."""
    if revisions.problem is not None:
        what, _, do = revisions.problem.rpartition(": ")
        return fail(PART, what, f"{do[0].upper()}{do[1:]}")
    if revisions.is_newer:
        return ok(
            PART,
            f"a newer version of Uplift migrated the ledger to revision {revisions.at}; this one"
            " works on it",
        )
    return ok(PART, f"migrated, revision {revisions.at}")


def judge_role(rights: Rights) -> Finding:
    """What was found out about writing."""
    if not rights.may_write:
        what = "it can be read. This role may not write, so nobody asked whether it takes it"
        return ok(PART, what)
    if rights.lacking:
        return fail(
            PART,
            f"this role may not write the tables {', '.join(rights.lacking)}",
            "Run `uplift migrate`: it gives the roles their rights.",
        )
    return ok(PART, "it can be written")


def judge_clock(skew: float) -> Finding:
    """`skew` is by how many seconds PostgreSQL's clock is ahead of this machine's."""
    if abs(skew) <= _MAX_SKEW_SECONDS:
        return ok(PART, f"the clocks agree within {_MAX_SKEW_SECONDS:.0f} s")
    way = "ahead of" if skew > 0 else "behind"
    what = f"its clock is {abs(skew):.0f} s {way} this machine's"
    do = "Run NTP on both. Uplift uses PostgreSQL's clock, its logs use the machine's."
    if abs(skew) <= MAX_APART_SECONDS:
        return warn(PART, what, do)
    return fail(PART, what, f"{do} While they differ, nothing expires.")
