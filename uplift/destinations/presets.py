"""What is known of each server, one row each. A deployment's settings override each field.

`docs/destinations/` has a page a row, with where it is from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from uplift.destinations.destination import Meaning, Mode, Subject

_FHIR_JSON = "application/fhir+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The fields of a destination that a kind of server decides. `login` names one of `logins`.

    `media_type` may have `{fhirVersion}` in it. `token_url` and `scope` are of its login; `{base}`
    in the scope stands for the destination's only base. `max_attempts_per_second` is None where the
    deployment's limit is right.
    """

    mode: Mode = Mode.PUT
    subject: Subject = Subject.PATIENT
    login: str = "client_credentials"
    media_type: str = _FHIR_JSON
    on_conflict: Meaning = Meaning.RETRY
    on_precondition: Meaning = Meaning.REFUSED
    bundle_entries: int = 1
    token_url: str = ""
    scope: str = ""
    max_attempts_per_second: float | None = None
    history: str = (
        "Servers may keep earlier versions and deleted resources as history. Their manual says how"
        " that is removed."
    )


_HAPI = Preset(
    login="none",
    on_conflict=Meaning.LOOK,  # of two PUTs at once the loser gets it, and so does If-Match
    bundle_entries=50,
    history="HAPI keeps every version and each deletion as history, which only a request for that"
    " version shows. An operator of HAPI removes it with $expunge: see docs/destinations/hapi.md.",
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "oneup": Preset(
            mode=Mode.ONEUP,
            subject=Subject.AS_IS,
            login="oneup",
            media_type="application/json",
            on_conflict=Meaning.REFUSED,
            bundle_entries=20,
        ),
        "hapi": _HAPI,
        "smile": replace(_HAPI, login="client_credentials"),
        "azure": Preset(
            subject=Subject.AS_IS,
            on_precondition=Meaning.RETRY,
            bundle_entries=500,
            scope="{base}/.default",
        ),
        "google": Preset(
            login="jwt_bearer",
            bundle_entries=4500,
            scope="https://www.googleapis.com/auth/cloud-healthcare",
        ),
        "healthlake": Preset(on_precondition=Meaning.RETRY, bundle_entries=160),
        "aidbox": Preset(bundle_entries=50),
        "firely": Preset(
            subject=Subject.AS_IS,
            media_type=f"{_FHIR_JSON}; fhirVersion={{fhirVersion}}",
            on_conflict=Meaning.REFUSED,
            bundle_entries=150,
        ),
        "medplum": Preset(
            mode=Mode.UPSERT,
            token_url="https://api.medplum.com/oauth2/token",  # noqa: S106
            bundle_entries=50,
            max_attempts_per_second=8.0,  # an update costs 100 of 50,000 points a minute
        ),
    }
)
