"""What is known of each server, one row each. A deployment's settings override each field.

`docs/destinations/` has a page a row, with where it is from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from uplift.destinations.destination import BundleType, Meaning, Mode, Subject

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
    bundle: BundleType = BundleType.NONE
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
            history=(
                "Azure keeps earlier versions, and what is deleted, as history. Who has the"
                " role FHIR Data Contributor removes it with ?_hardDelete=true or"
                " $purge-history: see docs/destinations/azure.md."
            ),
        ),
        "google": Preset(
            login="jwt_bearer",
            bundle_entries=4500,
            scope="https://www.googleapis.com/auth/cloud-healthcare",
            history=(
                "Google keeps earlier versions, and what is deleted, as history. $purge removes"
                " it, and needs the permission healthcare.fhirResources.purge: see"
                " docs/destinations/google.md."
            ),
        ),
        "healthlake": Preset(
            on_precondition=Meaning.RETRY,
            bundle_entries=160,
            history=(
                "HealthLake keeps every version as history. $erase removes that of a resource,"
                " and $purge that of a Patient: see docs/destinations/healthlake.md."
            ),
        ),
        "aidbox": Preset(
            bundle_entries=50,
            history=(
                "Aidbox keeps earlier versions, and what is deleted, in history tables. Its"
                " operator removes them in PostgreSQL: see docs/destinations/aidbox.md."
            ),
        ),
        "firely": Preset(
            subject=Subject.AS_IS,
            media_type=f"{_FHIR_JSON}; fhirVersion={{fhirVersion}}",
            on_conflict=Meaning.REFUSED,
            bundle_entries=150,
            history=(
                "Firely Server keeps what is deleted in its database. $erase removes it with"
                " all versions: see docs/destinations/firely.md."
            ),
        ),
        "medplum": Preset(
            mode=Mode.UPSERT,
            token_url="https://api.medplum.com/oauth2/token",  # noqa: S106
            bundle_entries=50,
            max_attempts_per_second=8.0,  # an update costs 100 of 50,000 points a minute
            history=(
                "Medplum keeps earlier versions, and what is deleted, as history. An"
                " administrator of the project removes it with $expunge: see"
                " docs/destinations/medplum.md."
            ),
        ),
    }
)
