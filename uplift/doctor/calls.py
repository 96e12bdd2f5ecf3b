"""Do the destinations take what is sent? Told from the latest calls that the ledger remembers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile

from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.ledger.recent_calls import DeadLetters

PART = "calls"

_MAX_SHARE = 0.1
# So few do not say that something is wrong with the deployment.
_MIN_CALLS = 5
# So many successes in a row, and what was before is past.
_PAST_AFTER = 20

_BUSY = 429
_CURES = {
    401: "A destination does not accept the login: the parts login and destinations say more.",
    403: "A destination forbids it: its page in docs/destinations/ has the least rights.",
    404: "The address of a destination is wrong, or it has not such a type: the lines of the part"
    " destinations say more.",
    400: "A destination refuses the records: `uplift uploads list --status refused`, then `uplift"
    " uploads show ID` names the elements.",
}
_CURES_ONEUP = {
    401: "1upHealth does not accept the tokens: check UPLIFT_ONEUP_CLIENT_ID, the secret and"
    " UPLIFT_ONEUP_TOKEN_URL.",
    403: "1upHealth forbids it: ask 1upHealth what your application may write.",
    404: "The address is wrong: check UPLIFT_ONEUP_FHIR_URL.",
    400: "1upHealth refuses the records: `uplift uploads list --status refused`, then `uplift"
    " uploads show ID` names the elements.",
}


def refused_share(statuses: Sequence[int], refusals: frozenset[int]) -> float:
    """The share of these statuses among the latest, the newest first; 0 if that is past."""
    if len(statuses) >= _PAST_AFTER and all(200 <= each < 300 for each in statuses[:_PAST_AFTER]):
        return 0.0
    refused = sum(each in refusals for each in statuses)
    return refused / len(statuses) if refused >= _MIN_CALLS else 0.0


def is_busy(statuses: Sequence[int]) -> bool:
    """Whether the destination asks for fewer calls, and not only now and then."""
    return refused_share(statuses, frozenset({_BUSY})) > _MAX_SHARE


def _telling(statuses: Sequence[int]) -> Sequence[int]:
    """The calls that tell how it is now: those since it began, if the newest were all refused.

    Then only probes go out: it would take minutes until they are a tenth of all.
    """
    refused = list(takewhile(_CURES.__contains__, statuses))
    return refused if len(refused) >= _MIN_CALLS else statuses


def _none_succeeds(statuses: Sequence[int]) -> bool:
    """Whether no call of so many succeeded, and it is not that there are too many."""
    return (
        len(statuses) >= _MIN_CALLS
        and not any(200 <= each < 300 for each in statuses)
        and any(each != _BUSY for each in statuses)
    )


def judge_calls(statuses: Sequence[int], *, oneup: bool = True) -> list[Finding]:
    """What the latest calls say, the newest first. `oneup`: 1upHealth is the only destination."""
    return list(_calls(statuses, oneup=oneup))


def _calls(statuses: Sequence[int], *, oneup: bool) -> Iterator[Finding]:
    who, cures = ("1upHealth", _CURES_ONEUP) if oneup else ("the destinations", _CURES)
    telling = _telling(statuses)
    share = refused_share(telling, frozenset(_CURES))
    if share > _MAX_SHARE:
        codes = Counter(each for each in telling if each in _CURES)
        said = ", ".join(f"{count} of {code}" for code, count in codes.most_common())
        yield fail(
            PART,
            f"{share:.0%} of the last {len(telling)} calls were refused: {said}",
            " ".join(cures[code] for code, _ in codes.most_common()),
        )
    elif _none_succeeds(statuses):
        said = ", ".join(f"{count} of {code}" for code, count in Counter(statuses).most_common())
        yield fail(
            PART,
            f"none of the last {len(statuses)} calls succeeded: {said}",
            "`uplift uploads list --status queued` shows what is answered. 5xx: a destination or"
            " something before it has a problem. Uploads wait meanwhile.",
        )
    if is_busy(statuses):
        busy = statuses.count(_BUSY)
        yield warn(
            PART,
            f"{busy} of the last {len(statuses)} calls were answered 429: too many requests",
            "More workers do not help. The rate limiter sends less by itself. If it lasts, ask"
            f" {who} for a higher limit, or lower UPLIFT_MAX_ATTEMPTS_PER_SECOND and run fewer"
            " workers.",
        )
    if share <= _MAX_SHARE and not _none_succeeds(statuses):
        takes = "takes" if oneup else "take"
        if not statuses:
            yield ok(PART, "no call was answered in the last ten minutes")
            return
        yield ok(PART, f"{who} {takes} what is sent, by the last {len(statuses)} calls")


def judge_held(held: int, statuses: Sequence[int]) -> list[Finding]:
    """What held uploads mean: something lasts, or it is over and they go out by themselves."""
    if not held:
        return []
    what = f"{held} upload(s) are held: a response blamed the deployment, not the record"
    if any(200 <= each < 300 for each in statuses):
        # Others get through. These go out by themselves, or are a few people's.
        do = "They are tried by themselves; at once with `uplift uploads try-now --reason held`."
        return [warn(PART, what, do)]
    return [
        fail(
            PART,
            f"{what}, and no call succeeded in the last ten minutes",
            "`uplift uploads list --reason held` shows the responses. Correct what they blame.",
        )
    ]


def judge_dead_letters(found: DeadLetters, statuses: Sequence[int]) -> list[Finding]:
    """Uploads that Uplift gave up on, or that were refused: they wait for a person."""
    if not found.waiting:
        return []
    redrive = "`uplift uploads redrive --status expired` (or `refused`) sends them again."
    past = bool(statuses) and all(200 <= each < 300 for each in statuses[:_PAST_AFTER])
    if found.expired_lately and not past:
        return [
            fail(
                PART,
                f"{found.expired_lately} upload(s) expired in the last ten minutes",
                f"`uplift uploads list --status expired` says why. End the cause. Then {redrive}",
            )
        ]
    return [
        warn(
            PART,
            f"{found.waiting} upload(s) of the last days expired or were refused",
            f"`uplift uploads list --status expired` (or `refused`) says why. {redrive}",
        )
    ]
