"""The report of a chaos run, for people."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import ceil

from chaos.checks import copies_of, marked_by_restores
from chaos.clocks import AHEAD_SECONDS
from chaos.evidence import Evidence, Row
from chaos.options import Options
from chaos.put_checks import stale_records
from chaos.scenario import HEAVY_PERSON
from uplift.lifecycle import Reason

_SHOWN = 12  # findings of one check


def lines(
    evidence: Evidence,
    findings: Mapping[str, list[str]],
    *,
    done: Mapping[str, int],
    errors: Mapping[str, int],
    seconds: float,
    settling: float,
) -> Iterator[str]:
    """The report, line by line; the last line says whether every check holds.

    `done` counts the faults, `errors` the errors that devices got.
    """
    options = evidence.options
    accepted = {each.upload_id for each in evidence.accepted}
    states = Counter(row.state for row in evidence.rows if row.id in accepted)
    kills = {name: number for name, number in done.items() if name.startswith("kill ")}
    destination = f"ids {options.ids}" if options.like == "oneup" else f"like {options.like}"
    delays = "longer than" if options.beyond else "within"
    yield (
        f"seed {options.seed}, {destination}, delays {delays} settle and index_lag:"
        f" {seconds:.0f} s in all"
    )
    yield (
        f"accepted        {len(evidence.accepted)} times 202, for {len(accepted)} uploads;"
        f" {_listed(states)}"
    )
    if evidence.lost:
        lost = {each.upload_id for each in evidence.lost}
        yield f"lost by design  {len(lost)} uploads, as the ledger went back in time"
    yield f"kills           {sum(kills.values())}: {_listed(kills, 'kill ')}"
    yield f"other faults    {_listed({k: v for k, v in done.items() if k not in kills})}"
    yield f"devices got     {_listed(errors)}"
    yield (
        f"upstream        {len(evidence.stored)} versions of"
        f" {len({(each.user, each.resource_id) for each in evidence.stored})} resources,"
        f" {sum(each.copy is not None for each in evidence.stored)} of them copies;"
        f" {sum(row.marked for row in evidence.rows)} uploads are marked as possible duplicates,"
        f" {sum(row.maybe_overwritten for row in evidence.rows)} as maybe overwritten"
    )
    blind = sum(row.marked and row.reason == Reason.CANNOT_LOOK_UP for row in evidence.rows)
    yield (
        f"marked          {len(marked_by_restores(evidence))} only as the ledger went back, for"
        f" {copies_of(evidence)} copies; {blind} more that no look-up can tell"
    )
    if options.puts:
        yield f"stale           {len(stale_records(evidence))} records"
    methods = Counter(each.method for each in evidence.requests)
    yield (
        f"requests        {methods['POST'] + methods['PUT']} writes, {methods['GET']} look-ups;"
        f" {len(evidence.attempts)} attempts at {len(evidence.rows)} uploads,"
        f" {len(evidence.attempts) - len({each.upload_id for each in evidence.attempts})} of them"
        " repeated"
    )
    yield from _waits(evidence)
    yield f"settled         {settling:.0f} s after the last fault"
    for name, found in findings.items():
        yield f"{'FAILED' if found else 'holds':7} {name}{f': {len(found)}' if found else ''}"
        for finding in found[:_SHOWN]:
            yield f"          {finding}"
    failed = sum(map(bool, findings.values()))
    verdict = f"{failed} of {len(findings)} checks FAILED" if failed else "every check holds"
    yield f"seed {options.seed}: {verdict}"


def _waits(evidence: Evidence) -> Iterator[str]:
    """How long it took from accepted to delivered; where one person is heavy, apart from theirs."""
    waits: dict[str, list[float]] = defaultdict(list)
    for row in evidence.rows:
        # PostgreSQL's clock may have jumped meanwhile.
        if row.waited is not None and 0 <= row.waited < AHEAD_SECONDS / 2:
            waits[_whose(row, evidence.options)].append(row.waited)
    for whose, seconds in sorted(waits.items()):
        p50, p95 = (ranked(seconds, share) for share in (0.5, 0.95))
        yield (
            f"waits           from accepted to delivered{whose}: p50 {p50:.1f} s, p95 {p95:.1f} s,"
            f" longest {max(seconds):.1f} s ({len(seconds)} uploads)"
        )


def _whose(row: Row, options: Options) -> str:
    if not options.heavy:
        return ""
    return f" of {HEAVY_PERSON}" if row.user == HEAVY_PERSON else " of the others"


def ranked(values: Sequence[float], share: float) -> float:
    """The smallest value such that this share of all values is not greater (nearest rank)."""
    return sorted(values)[max(1, ceil(share * len(values))) - 1]


def _listed(numbers: Mapping[str, int], prefix: str = "") -> str:
    return ", ".join(
        f"{name.removeprefix(prefix)} {number}" for name, number in sorted(numbers.items())
    )
