"""Makes the destinations of the settings: one by the environment alone, or several by a file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from uplift.destination_settings import PREFIX, DestinationSettings, check_names, plainly
from uplift.destinations.configured_login import configured_login
from uplift.destinations.derived_ids import read_id_key
from uplift.destinations.destination import (
    BundleType,
    ClientCertificate,
    Destination,
    Destinations,
    Meaning,
    Mode,
    OnDeleted,
    OnForeign,
    Subject,
)
from uplift.destinations.presets import PRESETS
from uplift.errors import ConfigurationError
from uplift.fhir.versions import FhirVersion
from uplift.secret_files import read_secret
from uplift.settings import Settings

ONEUP = "oneup"
"""The name of 1upHealth, which needs no other setting than UPLIFT_ONEUP_…"""

_NAMES = frozenset(name.removeprefix(PREFIX) for name in DestinationSettings.model_fields)
_SECRETS = frozenset(
    name.removeprefix(PREFIX)
    for name, field in DestinationSettings.model_fields.items()
    if field.annotation in (SecretStr, SecretStr | None)
)
# In the file each secret is a path.
_IN_FILE = (_NAMES - _SECRETS) | {f"{name}_file" for name in _SECRETS}


def configured_destinations(settings: Settings) -> Destinations:
    """The destinations of a deployment.

    Without a file there is the one that UPLIFT_DESTINATION names; and 1upHealth beside it while
    its client is set, so that people can move one by one. Raises ConfigurationError with the
    setting to change, also if a destination needs an id key and there is none.
    """
    if settings.destinations_file is None:
        own = DestinationSettings(**{name: getattr(settings, name) for name in _fields()})
        found = {settings.destination: _destination(settings.destination, own, settings)}
        if ONEUP not in found and settings.oneup_client_id:
            found[ONEUP] = _destination(ONEUP, DestinationSettings(), settings)
    else:
        found = {
            name: _destination(name, table, settings)
            for name, table in _tables(settings.destinations_file).items()
        }
    if settings.destination not in found:
        raise ConfigurationError(
            f"UPLIFT_DESTINATION is {settings.destination!r}, and UPLIFT_DESTINATIONS_FILE has no"
            f" such table. It has: {', '.join(sorted(found))}."
        )
    destinations = Destinations(found, default=settings.destination)
    if read_id_key(settings) is None and destinations.derive_ids:
        raise ConfigurationError(
            "UPLIFT_ID_KEY is not set, and a destination needs it: records have ids there that"
            " Uplift derives. `uplift keys id` makes one. Set it once and keep it."
        )
    return destinations


def _fields() -> list[str]:
    return list(DestinationSettings.model_fields)


def _tables(file: Path) -> dict[str, DestinationSettings]:
    """The tables of the destinations' file, by their names."""
    try:
        with file.open("rb") as stream:
            read = tomllib.load(stream)
    except OSError as error:
        raise ConfigurationError(
            f"The file that UPLIFT_DESTINATIONS_FILE names cannot be read ({error.strerror})."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The file that UPLIFT_DESTINATIONS_FILE names is not TOML: {error}."
        ) from None
    if not read:
        raise ConfigurationError("The file that UPLIFT_DESTINATIONS_FILE names has no table.")
    return {name: _table(name, table) for name, table in read.items()}


def _table(name: str, table: Any) -> DestinationSettings:
    where = f"The table [{name}] of UPLIFT_DESTINATIONS_FILE"
    if not isinstance(table, dict):
        raise ConfigurationError(
            f"{name} in UPLIFT_DESTINATIONS_FILE is not in a table. Each destination is one:"
            " [hapi] begins that of HAPI."
        )
    for secret in _SECRETS & table.keys():
        raise ConfigurationError(f"{where} has {secret}. Write it into a file: {secret}_file.")
    check_names(table, _IN_FILE, where=where)
    values = dict(table)
    for secret in _SECRETS:
        if path := values.pop(f"{secret}_file", None):
            variable = f"{secret}_file in [{name}]".removesuffix("_FILE")
            values[secret] = read_secret(variable, {f"{variable}_FILE": str(path)})
    try:
        return DestinationSettings(**{PREFIX + key: value for key, value in values.items()})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = str(first["loc"][0]).removeprefix(PREFIX) if first["loc"] else "a value"
        raise ConfigurationError(f"{where}: {key}: {plainly(first)}.") from None


def _destination(name: str, own: DestinationSettings, settings: Settings) -> Destination:
    kind = own.destination_preset or name
    if kind not in PRESETS:
        raise ConfigurationError(
            f"There is no preset {kind!r} for the destination {name!r}. Set preset"
            f" (UPLIFT_DESTINATION_PRESET) to one of: {', '.join(PRESETS)}."
        )
    preset = PRESETS[kind]
    limit = own.destination_max_attempts_per_second or preset.max_attempts_per_second
    mode = Mode(own.destination_mode or preset.mode)
    bundle = BundleType(own.destination_bundle or preset.bundle)
    if mode is Mode.ONEUP and bundle is not BundleType.NONE:
        raise ConfigurationError(
            f"The destination {name!r} has mode oneup and bundle {bundle}: Bundles need mode put or"
            " upsert, where a record that is sent twice is stored once."
        )
    bases = _bases(name, kind, own, settings)
    return Destination(
        name=name,
        bases=bases,
        mode=mode,
        subject=Subject(own.destination_subject or preset.subject),
        login=configured_login(name, own, preset, bases),
        media_type=own.destination_media_type or preset.media_type,
        headers=own.destination_headers,
        tenant=own.destination_tenant,
        proxy=own.destination_proxy,
        client_certificate=_certificate(own),
        on_conflict=Meaning(own.destination_on_conflict or preset.on_conflict),
        on_precondition=Meaning(own.destination_on_precondition or preset.on_precondition),
        on_foreign=OnForeign(own.destination_on_foreign),
        on_deleted=OnDeleted(own.destination_on_deleted),
        max_attempts_per_second=limit or settings.max_attempts_per_second,
        bundle=bundle,
        bundle_entries=own.destination_bundle_entries or preset.bundle_entries,
        bundle_bytes=own.destination_bundle_bytes,
        history=preset.history,
    )


def _bases(
    name: str, kind: str, own: DestinationSettings, settings: Settings
) -> Mapping[FhirVersion, str]:
    given = {
        FhirVersion.DSTU2: own.destination_dstu2,
        FhirVersion.STU3: own.destination_stu3,
        FhirVersion.R4: own.destination_r4,
    }
    bases = {version: base for version, base in given.items() if base}
    if not bases and kind == ONEUP:
        return {each: f"{settings.oneup_fhir_url}/{each.path}" for each in FhirVersion}
    if not bases:
        raise ConfigurationError(
            f"The destination {name!r} has no base: set r4, stu3 or dstu2 (in the environment"
            " UPLIFT_DESTINATION_R4 and so on)."
        )
    for version, base in bases.items():
        # An address is kept in the ledger and shown.
        if "@" in urlsplit(base).netloc:
            raise ConfigurationError(
                f"The base of {version.name} of the destination {name!r} has a user or a password"
                " in its address. Set the login basic, user and password in their place (in the"
                " environment UPLIFT_DESTINATION_LOGIN and so on)."
            )
    return bases


def _certificate(own: DestinationSettings) -> ClientCertificate | None:
    if own.destination_certificate_file is None:
        return None
    return ClientCertificate(own.destination_certificate_file, own.destination_certificate_key_file)
