"""The report of a chaos run, for people."""

from collections import Counter
from collections.abc import Iterator, Mapping

from chaos.evidence import Evidence

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
    delays = "longer than" if options.beyond else "within"
    yield (
        f"seed {options.seed}, ids {options.ids}, delays {delays} settle and index_lag:"
        f" {seconds:.0f} s in all"
    )
    yield (
        f"accepted        {len(evidence.accepted)} times 202, for {len(accepted)} uploads;"
        f" {_listed(states)}"
    )
    yield f"kills           {sum(kills.values())}: {_listed(kills, 'kill ')}"
    yield f"other faults    {_listed({k: v for k, v in done.items() if k not in kills})}"
    yield f"devices got     {_listed(errors)}"
    yield (
        f"upstream        {len(evidence.stored)} versions of"
        f" {len({(each.user, each.resource_id) for each in evidence.stored})} resources,"
        f" {sum(each.copy is not None for each in evidence.stored)} of them copies;"
        f" {sum(row.marked for row in evidence.rows)} uploads are marked as possible duplicates"
    )
    methods = Counter(each.method for each in evidence.requests)
    yield (
        f"requests        {methods['POST']} writes, {methods['GET']} look-ups;"
        f" {len(evidence.attempts)} attempts at {len(evidence.rows)} uploads,"
        f" {len(evidence.attempts) - len({each.upload_id for each in evidence.attempts})} of them"
        " repeated"
    )
    yield f"settled         {settling:.0f} s after the last fault"
    for name, found in findings.items():
        yield f"{'FAILED' if found else 'holds':7} {name}{f': {len(found)}' if found else ''}"
        for finding in found[:_SHOWN]:
            yield f"          {finding}"
    failed = sum(map(bool, findings.values()))
    verdict = f"{failed} of {len(findings)} checks FAILED" if failed else "every check holds"
    yield f"seed {options.seed}: {verdict}"


def _listed(numbers: Mapping[str, int], prefix: str = "") -> str:
    return ", ".join(
        f"{name.removeprefix(prefix)} {number}" for name, number in sorted(numbers.items())
    )
