"""Is the work taken up, is there room for more, and does what is old go?"""

from collections.abc import Iterator

from uplift.delivery.rate_limiter import RateLimiterState
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.ledger.backlog import Backlog, Overdue

WORK = "work"
PACE = "pace"
RETENTION = "retention"

# The sweep rings within seconds; what is due for longer waits for workers.
_LATE_SECONDS = 60.0
_VERY_LATE_SECONDS = 3600.0
_ABANDONED_SECONDS = 60.0
_FULL = 0.8
_LAG_SECONDS = 2 * 24 * 3600.0


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
        "Is a worker alive, and does 1upHealth take what is sent (below)? Are they many? Start more"
        " `worker` and `bulk` processes."
    )
    yield (fail if facts.due_seconds > _VERY_LATE_SECONDS else warn)(WORK, what, do)


def judge_backlog(facts: Backlog, limit: int) -> list[Finding]:
    """Whether more can be accepted, and what somebody has stopped."""
    return list(_backlog(facts, limit))


def _backlog(facts: Backlog, limit: int) -> Iterator[Finding]:
    unfinished = sum(each.uploads for each in facts.waiting)
    what = f"{unfinished} upload(s) unfinished, of {limit} that are accepted"
    if unfinished >= limit:
        yield fail(
            WORK,
            f"{what}: the API answers 503",
            "Find why so little is delivered (the other lines), or raise UPLIFT_MAX_BACKLOG.",
        )
    elif unfinished > _FULL * limit:
        yield warn(
            WORK,
            what,
            "Find why so little is delivered (the other lines), before the API answers 503.",
        )
    else:
        yield ok(WORK, what)
    if facts.all_paused:
        yield warn(
            WORK,
            "everybody is paused: nothing is sent",
            "When what it was paused for is over: `uplift resume`. `uplift pause --list` says since"
            " when.",
        )
    if facts.users_paused:
        yield warn(
            WORK,
            f"{facts.users_paused} user(s) are paused",
            "`uplift pause --list` says who; `uplift resume NAME` ends it.",
        )
    if facts.users_parked:
        # Some people always withdraw their consent: nothing is wrong with the deployment.
        yield ok(
            WORK,
            f"uploads of {facts.users_parked} user(s) are parked until they consent again:"
            " `uplift users list --grant needs_authorization`",
        )


def judge_pace(state: RateLimiterState | None) -> Finding:
    """How fast 1upHealth lets us send; None if Redis did not answer."""
    match state:
        case None:
            return warn(
                PACE, "not known, for want of Redis: each worker sends slowly", "Bring Redis back."
            )
        case RateLimiterState(phase="full"):
            return ok(PACE, f"open, up to {state.limit:.0f} attempts a second")
        case RateLimiterState(phase="throttled"):
            return ok(
                PACE,
                f"slowed to {state.limit:.0f} attempts a second, after a 429 or an outage; success"
                " raises it again",
            )
        case RateLimiterState(phase="suspended"):
            return warn(
                PACE,
                f"closed for {state.wait:.0f} s, as 1upHealth asked (Retry-After)",
                "Nothing: it opens by itself. If it stays so, ask 1upHealth.",
            )
        case _:
            return warn(
                PACE,
                "shut: only a probe goes out now and then, since nothing succeeds",
                "`uplift uploads list --status queued` shows what it answers: is it away, or does"
                " it refuse this deployment? The pace opens by itself with the first success.",
            )


def judge_retention(lag_seconds: float) -> Finding:
    """Whether what should be gone is gone."""
    if lag_seconds <= _LAG_SECONDS:
        return ok(RETENTION, "what is older than its time is gone")
    return warn(
        RETENTION,
        f"uploads should have been thinned out {lag_seconds / 86_400:.0f} day(s) ago",
        "Is `beat` running (above)? After UPLIFT_RETAIN_DELIVERED_DAYS was lowered it takes a"
        " while: some hundred uploads a second.",
    )
