"""Is the work done, is there space for more, and are old uploads removed?"""

from collections.abc import Collection, Iterator

from uplift.delivery.rate_limiter import RateLimiterState
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.ledger.backlog import Backlog, Overdue
from uplift.ledger.set_aside import FhirType

WORK = "work"
RATE_LIMITER = "rate limiter"
TYPES = "FHIR types"
RETENTION = "retention"

# The sweep dispatches due uploads within seconds. If one is due for longer, workers are missing.
_LATE_SECONDS = 60.0
_VERY_LATE_SECONDS = 3600.0
_ABANDONED_SECONDS = 60.0
_FULL = 0.8
_LAG_SECONDS = 2 * 24 * 3600.0


def judge_work(facts: Overdue, *, busy: bool = False) -> list[Finding]:
    """Whether workers do what is due. `busy` is whether the destination asks for fewer calls."""
    return list(_work(facts, busy=busy))


def _work(facts: Overdue, *, busy: bool) -> Iterator[Finding]:
    if facts.abandoned_seconds > _ABANDONED_SECONDS:
        yield fail(
            WORK,
            f"{facts.abandoned} upload(s) lost their worker, the first"
            f" {facts.abandoned_seconds:.0f} s ago, and the sweep does not requeue them",
            "Start or restart the process `beat`. Without it nothing is retried.",
        )
    if facts.due_seconds <= _LATE_SECONDS:
        yield ok(WORK, f"{facts.due} upload(s) due, none for longer than {_LATE_SECONDS:.0f} s")
        return
    what = f"{facts.due} upload(s) due, the oldest for {facts.due_seconds:.0f} s"
    do = (
        "The destination takes no more: see the calls below. More workers would not help."
        if busy
        else "Check below that the workers run and that the destination responds. If both are well,"
        " start more `worker` and `bulk` processes."
    )
    yield (fail if facts.due_seconds > _VERY_LATE_SECONDS else warn)(WORK, what, do)


def judge_backlog(facts: Backlog, limit: int) -> list[Finding]:
    """Whether the API accepts more, and what is paused or parked."""
    return list(_backlog(facts, limit))


def _backlog(facts: Backlog, limit: int) -> Iterator[Finding]:
    unfinished = sum(each.uploads for each in facts.waiting)
    what = f"{unfinished} upload(s) unfinished, the limit is {limit}"
    if unfinished >= limit:
        yield fail(
            WORK,
            f"{what}: the API answers 503",
            "The other lines may say why so little is delivered. Or raise UPLIFT_MAX_BACKLOG.",
        )
    elif unfinished > _FULL * limit:
        yield warn(
            WORK,
            what,
            "The other lines may say why so little is delivered. At the limit the API answers 503.",
        )
    else:
        yield ok(WORK, what)
    if facts.all_paused:
        yield warn(
            WORK,
            "everything is paused: nothing is sent",
            "`uplift resume` ends the pause. `uplift pause --list` shows when it began.",
        )
    if facts.users_paused:
        yield warn(
            WORK,
            f"{facts.users_paused} user(s) are paused",
            "`uplift pause --list` shows them. `uplift resume NAME` ends a pause.",
        )
    if facts.users_parked:
        # Some people withdraw their consent. The deployment is all right then.
        yield ok(
            WORK,
            f"uploads of {facts.users_parked} user(s) are parked until they consent again:"
            " `uplift users list --grant needs_authorization`",
        )


def judge_rate_limiter(state: RateLimiterState | None) -> Finding:
    """How fast the destination lets us send; None if Redis did not answer."""
    match state:
        case None:
            return warn(
                RATE_LIMITER,
                "unknown: Redis is not reachable, so workers send slowly",
                "Bring Redis back.",
            )
        case RateLimiterState(phase="full"):
            return ok(RATE_LIMITER, f"full: up to {state.limit:.0f} attempts a second")
        case RateLimiterState(phase="throttled"):
            return ok(
                RATE_LIMITER,
                f"throttled: up to {state.limit:.0f} attempts a second, after a 429 or an outage."
                " Success raises the limit",
            )
        case RateLimiterState(phase="suspended"):
            return warn(
                RATE_LIMITER,
                f"suspended for {state.wait:.0f} s: the destination asked for it (Retry-After)",
                "Wait: the sending starts again by itself. If it stays so, ask who runs it.",
            )
        case _:
            return warn(
                RATE_LIMITER,
                "probing: nothing succeeds, so only one upload is tried from time to time",
                "`uplift uploads list --status queued` shows what the destination responds. It may"
                " be away, or refuse this deployment. The first success ends the probing.",
            )


def judge_types(probing: Collection[FhirType]) -> Finding:
    """Whether the destination takes every FHIR type that is sent."""
    if not probing:
        return ok(TYPES, "no type is set aside")
    names = ", ".join(sorted(" ".join(each) for each in probing))
    return warn(
        TYPES,
        f"the destination answers as if it lacked {names}: its uploads are held, and only probes"
        " go out",
        "If it is one type or version, the destination does not take it. If it is all, check"
        " its address and the contract. `uplift uploads list --status queued` shows what"
        " it responds. The first success of a type ends it.",
    )


def judge_retention(lag_seconds: float) -> Finding:
    """Whether old uploads are removed in time."""
    if lag_seconds <= _LAG_SECONDS:
        return ok(RETENTION, "no upload is older than the retention allows")
    return warn(
        RETENTION,
        f"retention is {lag_seconds / 86_400:.0f} day(s) late",
        "Check that the process `beat` runs. After UPLIFT_RETAIN_DELIVERED_DAYS was lowered, it"
        " takes a while: some hundred uploads a second.",
    )
