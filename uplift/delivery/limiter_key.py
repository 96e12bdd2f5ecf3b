"""Of what the rate limiter limits attempts: a whole destination, or one FHIR type there."""

from dataclasses import dataclass

from uplift.ledger.set_aside import FhirType

ONEUP = "oneup"
"""The name of 1upHealth as a destination."""


@dataclass(frozen=True, slots=True)
class LimiterKey:
    """A destination, or one FHIR type of it. Its state is in Redis under names of its own."""

    destination: str
    fhir_type: FhirType | None = None

    def name(self, part: str = "") -> str:
        """The name in Redis of this part of its state."""
        of_type = "/".join(self.fhir_type) if self.fhir_type is not None else ""
        return ":".join(
            each for each in ("uplift:rate_limiter", self.destination, part, of_type) if each
        )
