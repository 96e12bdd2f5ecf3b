"""How many mutants of each kind are rejected; `python -m tests.uplift.fhir.mutation_table` prints
it as the tables of docs/validation.md."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.uplift.fhir.mutants import KINDS, Mutant, mutants
from tests.uplift.fhir.published import examples
from uplift.fhir.second_opinion import objection
from uplift.fhir.tolerances import Tolerances
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion


@dataclass
class Tally:
    """Mutants of one version by kind: how many there were, and how many each judge rejected."""

    version: FhirVersion
    made: Counter[str] = field(default_factory=Counter)
    strict: Counter[str] = field(default_factory=Counter)
    default: Counter[str] = field(default_factory=Counter)
    library: Counter[str] = field(default_factory=Counter)

    def count(self, mutant: Mutant) -> None:
        """Judge one mutant."""
        kind = mutant.kind
        self.made[kind] += 1
        self.strict[kind] += not validate(
            mutant.body, self.version, tolerances=Tolerances.strict()
        ).valid
        self.default[kind] += not validate(mutant.body, self.version).valid
        self.library[kind] += objection(mutant.body, self.version, mutant.resource_type) is not None

    def share(self, judged: Counter[str]) -> float:
        """The share of all mutants that were rejected."""
        return judged.total() / self.made.total()

    def table(self) -> Iterator[str]:
        """The lines of a Markdown table, by kind."""
        yield f"| {self.version}: kind of defect | mutants | strict | default | fhir.resources |"
        yield "|---|--:|--:|--:|--:|"
        for kind in KINDS:
            if made := self.made[kind]:
                yield self._line(
                    kind, made, self.strict[kind], self.default[kind], self.library[kind]
                )
        yield self._line(
            f"**all {len(self.made)} kinds**",
            self.made.total(),
            self.strict.total(),
            self.default.total(),
            self.library.total(),
        )

    def _line(self, name: str, made: int, strict: int, default: int, library: int) -> str:
        theirs = "none" if self.version is FhirVersion.DSTU2 else f"{library / made:.1%}"
        return f"| {name} | {made} | {strict / made:.1%} | {default / made:.1%} | {theirs} |"


def tally(version: FhirVersion) -> Tally:
    """Judge every mutant of every example of the version that is strictly valid itself."""
    counted = Tally(version)
    for file, body in examples(version).items():
        if not validate(body, version, tolerances=Tolerances.strict()).valid:
            continue
        for mutant in mutants(version, file, body):
            counted.count(mutant)
    return counted


if __name__ == "__main__":
    for each in FhirVersion:
        sys.stdout.write("\n".join(tally(each).table()) + "\n\n")
