"""Destinations that tests know."""

from dataclasses import replace
from typing import Any

from uplift.destinations.destination import (
    Destination,
    Meaning,
    Mode,
    NoLogin,
    OneUpLogin,
    Subject,
)
from uplift.fhir.versions import FhirVersion


def oneup(url: str = "http://oneup.invalid", **changed: Any) -> Destination:
    """1upHealth at that address."""
    made = Destination(
        name="oneup",
        bases={version: f"{url.rstrip('/')}/{version.path}" for version in FhirVersion},
        mode=Mode.ONEUP,
        subject=Subject.AS_IS,
        login=OneUpLogin(),
        media_type="application/json",
        max_attempts_per_second=5000.0,
    )
    return replace(made, **changed)


def hapi(url: str = "http://hapi.invalid", **changed: Any) -> Destination:
    """A HAPI server for each version, below that address."""
    made = Destination(
        name="hapi",
        bases={version: f"{url}/{version.path}" for version in FhirVersion},
        mode=Mode.PUT,
        subject=Subject.PATIENT,
        login=NoLogin(),
        media_type="application/fhir+json",
        on_conflict=Meaning.LOOK,
        max_attempts_per_second=5000.0,
    )
    return replace(made, **changed)
