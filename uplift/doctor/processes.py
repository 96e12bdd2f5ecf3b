"""Do the processes lack something, and are their clocks right? As they said it to the ledger."""

from collections import Counter
from collections.abc import Iterator, Sequence

from uplift.clocks import MAX_APART_SECONDS
from uplift.doctor.findings import Finding, fail, ok
from uplift.ledger.processes import Seen

PART = "processes"


def judge_processes(seen: Sequence[Seen]) -> list[Finding]:
    """What the living processes said."""
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(_kinds(seen).items()))
    return list(_problems(seen)) or [ok(PART, f"heard of lately: {said or 'none'}")]


def _problems(seen: Sequence[Seen]) -> Iterator[Finding]:
    for kind, count in sorted(_kinds([each for each in seen if each.lacks_files]).items()):
        yield fail(
            PART,
            f"{kind}: {count} process(es) can open no more files, so they take no connections",
            "Raise the limit (`ulimit -n`, systemd's LimitNOFILE) and restart them.",
        )
    wrong = [each for each in seen if abs(each.ahead) > MAX_APART_SECONDS]
    for each in sorted(wrong, key=lambda each: each.kind):
        way = "ahead of" if each.ahead > 0 else "behind"
        yield fail(
            PART,
            f"{each.kind}: the clock of a machine is {abs(each.ahead):.0f} s {way} PostgreSQL's",
            "Run NTP on both. While they differ, nothing expires.",
        )


def _kinds(seen: Sequence[Seen]) -> Counter[str]:
    return Counter(each.kind for each in seen)
