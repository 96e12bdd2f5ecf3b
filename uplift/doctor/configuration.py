"""Are all settings there, and can they be right?"""

from collections.abc import Iterator
from ipaddress import ip_address

import httpx
from pydantic import ValidationError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from uplift.destination_settings import plainly
from uplift.destinations.configured import ONEUP, configured_destinations
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.errors import ConfigurationError
from uplift.fhir.tolerances import chosen_tolerances
from uplift.settings import Settings

PART = "configuration"

_SEE = "Set it. .env.example describes every setting."
_CORRECT = "Correct it. .env.example describes every setting."


def refused(error: ValidationError) -> list[Finding]:
    """The settings that pydantic refuses, without their values."""
    return [
        fail(
            PART,
            f"UPLIFT_{'_'.join(str(part).upper() for part in each['loc'])}: {plainly(each)}"
            if each["loc"]
            else plainly(each),
            _CORRECT,
        )
        for each in error.errors(include_input=False, include_url=False)
    ]


def judge_settings(settings: Settings) -> list[Finding]:
    """What is missing or looks wrong."""
    return list(_problems(settings)) or [ok(PART, "the settings are complete")]


def _problems(settings: Settings) -> Iterator[Finding]:
    for name in ("database_url", "redis_url", "master_keys"):
        if getattr(settings, name) is None:
            yield fail(PART, f"UPLIFT_{name.upper()} is not set", _SEE)
    if with_oneup(settings):
        yield from _oneup(settings)
    for check in (chosen_tolerances, configured_destinations):
        try:
            check(settings)
        except ConfigurationError as error:
            yield fail(PART, str(error), _CORRECT)
    if settings.database_url is not None:
        yield from _database_url(settings.database_url.get_secret_value())


def with_oneup(settings: Settings) -> bool:
    """Whether a destination is 1upHealth: each person logs in. So it is if nobody can tell."""
    try:
        return any(each.needs_grant for each in configured_destinations(settings).values())
    except ConfigurationError:
        return settings.destinations_file is None and settings.destination == ONEUP


def only_oneup(settings: Settings) -> bool:
    """Whether 1upHealth is the only destination. So it is if nobody can tell."""
    try:
        return all(each.needs_grant for each in configured_destinations(settings).values())
    except ConfigurationError:
        return with_oneup(settings)


def _oneup(settings: Settings) -> Iterator[Finding]:
    for name, value in (
        ("oneup_client_id", settings.oneup_client_id),
        ("oneup_client_secret", settings.oneup_client_secret.get_secret_value()),
    ):
        if not value:
            yield fail(
                PART,
                f"UPLIFT_{name.upper()} is not set",
                "Set it to what 1upHealth gave your application.",
            )
        elif not (value.isascii() and value.isprintable()):
            yield fail(
                PART,
                f"UPLIFT_{name.upper()} is not visible ASCII",
                "Check it for a line break at its end: it is sent in a header.",
            )
    for name in ("oneup_fhir_url", "oneup_token_url", "oneup_users_url"):
        yield from _oneup_url(f"UPLIFT_{name.upper()}", getattr(settings, name))


def judge_files(limit: int, needed: int) -> Finding:
    """`limit` is how many files a process on this machine may open."""
    if limit >= needed:
        return ok(PART, f"a process may open {limit} files")
    return fail(
        PART,
        f"a process may open {limit} files, and the API or a worker needs {needed}",
        "Raise the limit (`ulimit -n`, systemd's LimitNOFILE), or lower UPLIFT_API_MAX_CONNECTIONS"
        " or UPLIFT_MAX_IN_FLIGHT.",
    )


def _database_url(text: str) -> Iterator[Finding]:
    try:
        make_url(text)
    except (ArgumentError, ValueError):
        # The error's text may quote the address, with its password.
        yield fail(
            PART,
            "UPLIFT_DATABASE_URL is not an address",
            "Write postgresql://user:password@host/name. In the password, write % as %25, / as %2F"
            " and @ as %40.",
        )


def _oneup_url(name: str, text: str) -> Iterator[Finding]:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("https", "http") or not url.host:
        yield fail(PART, f"{name} is not an address", "Write https:// and a host.")
    elif url.scheme == "http" and not _is_loopback(url.host):
        yield warn(
            PART,
            f"{name} is not https",
            "Use https: tokens and health data would cross the network unencrypted.",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
