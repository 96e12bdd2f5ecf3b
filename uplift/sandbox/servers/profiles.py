"""The servers that can be simulated, one row each.

HAPI's row was seen at the real server, and is held to it. The others are of their documents and
sources; what those leave open is a guess that Uplift must not rely on. `docs/sandbox.md` says which
is which.
"""

from collections.abc import Mapping
from types import MappingProxyType

from uplift.sandbox.servers.profile import Profile

_KIB = 1024

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "hapi": Profile(
            title="HAPI FHIR server",
            versions=("r4", "dstu2"),
            auth="none",
            is_hapi=True,
            numeric_ids=False,
            stale_if_match=409,
            if_match_without=None,
            searches_with_if_match=False,
            integrity="always",
            keeps_targets=True,
            external_references=False,
            delete_status=200,
            delete_again_status=200,
            adds="source",
            declares=frozenset({"conditionalCreate", "conditionalUpdate"}),
        ),
        "azure": Profile(
            title="Azure FHIR service",
            versions=("r4", "stu3"),
            scope="{base}/.default",
            checks_ids_of_posts=True,
            if_match_without=404,
            throttle="retry_after",
            max_entries=500,
            checks_narrative=True,
        ),
        "google": Profile(
            title="Google Cloud Healthcare API",
            versions=("r4", "stu3", "dstu2"),
            auth="jwt_bearer",
            opaque_versions=True,
            equal_put_is_a_version=True,
            integrity="always",
            keeps_targets=True,
            delete_status=200,
            delete_again_status=200,
            max_entries=4500,
            needs_media_type=True,
        ),
        "healthlake": Profile(
            title="AWS HealthLake",
            versions=("r4",),
            equal_put_is_a_version=True,
            if_match_without=None,
            integrity="single",
            gone=404,
            max_entries=160,
            max_note=10_000,
            adds="notes",
            declares=frozenset({"updateCreate"}),
        ),
        "aidbox": Profile(
            title="Aidbox",
            versions=("r4", "stu3"),
            integrity="always",
            dangling=422,
            delete_status=200,
            max_bytes=20 * _KIB * _KIB,
            adds="created_at",
            declares=frozenset({"conditionalUpdate"}),
        ),
        "firely": Profile(
            title="Firely Server",
            versions=("r4", "stu3"),
            opaque_versions=True,
            equal_put_is_a_version=True,
            max_entries=150,
            max_bytes=_KIB * _KIB,
        ),
        "medplum": Profile(
            title="Medplum",
            versions=("r4",),
            client_ids=False,
            opaque_versions=True,
            if_match_without=None,
            searches_with_if_match=False,
            delete_status=200,
            delete_again_status=200,
            throttle="rate_limit",
            adds="owner",
            declares=frozenset({"conditionalCreate", "conditionalUpdate"}),
        ),
    }
)
"""By the name that `--like` and the preset have."""
