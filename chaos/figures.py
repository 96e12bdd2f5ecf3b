"""A storm in numbers, for people."""

from collections import Counter
from collections.abc import Iterator, Mapping

from chaos.evidence import Evidence

_SHOWN = 12  # findings of one check


def lines(
    evidence: Evidence,
    findings: Mapping[str, list[str]],
    *,
    done: Mapping[str, int],
    met: Mapping[str, int],
    seconds: float,
    settling: float,
) -> Iterator[str]:
    """The report, line by line; the last says whether everything holds."""
    terms = evidence.terms
    told = {each.upload_id for each in evidence.told}
    states = Counter(row.state for row in evidence.rows if row.id in told)
    kills = {name: number for name, number in done.items() if name.startswith("kill ")}
    clocks = "beyond settle and index_lag" if terms.beyond else "within settle and index_lag"
    yield f"seed {terms.seed}, ids {terms.ids}, delays {clocks}: {seconds:.0f} s in all"
    yield f"told 202        {len(evidence.told)} times, of {len(told)} uploads; {_listed(states)}"
    yield f"kills           {sum(kills.values())}: {_listed(kills, 'kill ')}"
    yield f"other harm      {_listed({k: v for k, v in done.items() if k not in kills})}"
    yield f"devices met     {_listed(met)}"
    yield (
        f"upstream        {len(evidence.stored)} versions of"
        f" {len({(each.user, each.resource_id) for each in evidence.stored})} resources,"
        f" {sum(each.copy is not None for each in evidence.stored)} of them copies;"
        f" {sum(row.marked for row in evidence.rows)} uploads carry the mark"
    )
    methods = Counter(each.method for each in evidence.requests)
    yield (
        f"requests        {methods['POST']} writes, {methods['GET']} looks;"
        f" {len(evidence.attempts)} attempts at {len(evidence.rows)} uploads,"
        f" {len(evidence.attempts) - len({each.upload_id for each in evidence.attempts})} of them"
        " repeated"
    )
    yield f"settled         {settling:.0f} s after the last harm"
    for name, found in findings.items():
        yield f"{'FAILED' if found else 'holds':7} {name}{f': {len(found)}' if found else ''}"
        for finding in found[:_SHOWN]:
            yield f"          {finding}"
    failed = sum(map(bool, findings.values()))
    verdict = f"{failed} of {len(findings)} checks FAILED" if failed else "every check holds"
    yield f"seed {terms.seed}: {verdict}"


def _listed(numbers: Mapping[str, int], prefix: str = "") -> str:
    return ", ".join(
        f"{name.removeprefix(prefix)} {number}" for name, number in sorted(numbers.items())
    )
