"""Which deviations are warnings. Every other finding is an error."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from uplift.errors import ConfigurationError
from uplift.fhir.deviations import CATALOGUE
from uplift.fhir.findings import Kind
from uplift.fhir.versions import FhirVersion
from uplift.settings import Settings

ToleranceSet = Literal["strict", "default", "lenient"]


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The kinds of findings that are warnings, by version."""

    tolerated: frozenset[tuple[Kind, FhirVersion]]

    @classmethod
    def named(cls, name: ToleranceSet) -> Self:
        """One of the sets: `strict` tolerates nothing, `default` what the catalogue says, and
        `lenient` all of the catalogue."""
        return cls(
            frozenset(
                (each.kind, version)
                for each in CATALOGUE
                for version in FhirVersion
                if name == "lenient" or (name == "default" and version in each.tolerated)
            )
        )

    def tolerates(self, kind: Kind, version: FhirVersion) -> bool:
        """Whether a finding of the kind is a warning only."""
        return (kind, version) in self.tolerated

    def overridden(self, overrides: str) -> Self:
        """These, but for single kinds: `kind=warning` or `kind=error`, with commas between them.

        Raises ConfigurationError for a kind that is not in the catalogue, and for another word.
        """
        known = {each.kind.value: each.kind for each in CATALOGUE}
        tolerated = self.tolerated
        for number, each in enumerate(overrides.split(","), 1):
            if not each.strip():
                continue
            name, _, severity = (part.strip() for part in each.partition("="))
            if name not in known or severity not in ("warning", "error"):
                raise ConfigurationError(
                    f"UPLIFT_TOLERANCE_OVERRIDES: entry {number} is not kind=warning or kind=error."
                    f" The kinds are {', '.join(known)}."
                )
            everywhere = {(known[name], version) for version in FhirVersion}
            tolerated = tolerated | everywhere if severity == "warning" else tolerated - everywhere
        return replace(self, tolerated=tolerated)


def chosen_tolerances(settings: Settings) -> Tolerances:
    """The tolerances that a deployment has chosen. Raises ConfigurationError."""
    return Tolerances.named(settings.tolerances).overridden(settings.tolerance_overrides)


DEFAULT_TOLERANCES = Tolerances.named("default")
