"""Whether a destination takes a FHIR version. Pure."""

from collections.abc import Mapping

from uplift.destinations.destination import Destination
from uplift.errors import VersionNotTaken
from uplift.fhir.versions import FhirVersion
from uplift.problem_types import ProblemType


def takes(destinations: Mapping[str, Destination], name: str, fhir_version: str) -> bool:
    """Whether the destination of that name takes the version.

    One that this process does not know may take it: another process knows.
    """
    destination = destinations.get(name)
    return destination is None or destination.base(FhirVersion(fhir_version)) is not None


def check_version(destinations: Mapping[str, Destination], name: str, fhir_version: str) -> None:
    """Raises VersionNotTaken if the destination of that name does not take the version."""
    if takes(destinations, name, fhir_version):
        return
    taken = ", ".join(version for version in FhirVersion if destinations[name].base(version))
    raise VersionNotTaken(
        ProblemType.VERSION_NOT_TAKEN,
        f"The destination {name!r} takes {taken} only, and this record is {fhir_version}. It is not"
        " accepted, and sending it again does not help.",
    )
