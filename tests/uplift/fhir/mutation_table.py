"""How many mutants of each kind are rejected; `python -m tests.uplift.fhir.mutation_table` prints
it as the tables of docs/validation.md."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.uplift.fhir.mutants import KINDS, Mutant, mutants
from tests.uplift.fhir.published import examples
from uplift.fhir.findings import Kind
from uplift.fhir.issues import Report
from uplift.fhir.second_opinion import objection
from uplift.fhir.tolerances import Tolerances
from uplift.fhir.validate import findings, readable
from uplift.fhir.versions import FhirVersion

SETS = {name: Tolerances.named(name) for name in ("strict", "default", "lenient")}


@dataclass
class Tally:
    """Mutants of one version by kind: how many there were, and how many each judge rejected."""

    version: FhirVersion
    made: Counter[str] = field(default_factory=Counter)
    rejected: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in SETS}
    )
    library: Counter[str] = field(default_factory=Counter)

    def count(self, mutant: Mutant) -> None:
        """Judge one mutant under every set: its findings are the same."""
        kind = mutant.kind
        self.made[kind] += 1
        found = kinds_found(mutant.body, self.version)
        for name, tolerances in SETS.items():
            self.rejected[name][kind] += not all(
                tolerances.tolerates(each, self.version) for each in found
            )
        self.library[kind] += objection(mutant.body, self.version, mutant.resource_type) is not None

    def share(self, judged: Counter[str]) -> float:
        """The share of all mutants that were rejected."""
        return judged.total() / self.made.total()

    def table(self) -> Iterator[str]:
        """The lines of a Markdown table, by kind."""
        yield f"| {self.version}: kind of defect | mutants | {' | '.join(SETS)} | fhir.resources |"
        yield f"|---|--:|{'--:|' * len(SETS)}--:|"
        for kind in KINDS:
            if made := self.made[kind]:
                counts = [each[kind] for each in self.rejected.values()]
                yield self._line(kind, made, counts, self.library[kind])
        counts = [each.total() for each in self.rejected.values()]
        name = f"**all {len(self.made)} kinds**"
        yield self._line(name, self.made.total(), counts, self.library.total())

    def _line(self, name: str, made: int, counts: list[int], library: int) -> str:
        ours = " | ".join(f"{count / made:.1%}" for count in counts)
        theirs = "none" if self.version is FhirVersion.DSTU2 else f"{library / made:.1%}"
        return f"| {name} | {made} | {ours} | {theirs} |"


def kinds_found(body: bytes, version: FhirVersion) -> set[Kind]:
    """The kinds of what is wrong. Bytes that are no resource are wrong in their structure."""
    resource = readable(body, version)
    if isinstance(resource, Report):
        return {Kind.STRUCTURE}
    return {finding.kind for finding in findings(resource, version)}


def tally(version: FhirVersion, *, every: int = 1) -> Tally:
    """Judge every mutant of every example of the version that is strictly valid itself; or of each
    second, third and so on."""
    counted = Tally(version)
    for file, body in list(examples(version).items())[::every]:
        if kinds_found(body, version):
            continue
        for mutant in mutants(version, file, body):
            counted.count(mutant)
    return counted


if __name__ == "__main__":
    for each in FhirVersion:
        sys.stdout.write("\n".join(tally(each).table()) + "\n\n")
