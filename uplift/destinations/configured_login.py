"""Makes a destination's login of its settings."""

from collections.abc import Mapping
from typing import TypeVar

from uplift.destination_settings import PREFIX, DestinationSettings
from uplift.destinations.destination import (
    BasicLogin,
    BearerLogin,
    ClientCredentialsLogin,
    ClientStyle,
    Login,
    NoLogin,
    OneUpLogin,
    PrivateKeyLogin,
    ServiceAccountLogin,
)
from uplift.destinations.presets import Preset
from uplift.errors import ConfigurationError
from uplift.fhir.versions import FhirVersion

_Value = TypeVar("_Value")

_WITH_TOKEN_URL = frozenset({"client_credentials", "private_key_jwt", "jwt_bearer"})
# Which logins a setting is for. With another one it would do nothing, and nobody would know.
_OF_LOGINS = {
    "token_file": frozenset({"bearer"}),
    "user": frozenset({"basic"}),
    "password": frozenset({"basic"}),
    "client_id": frozenset({"client_credentials", "private_key_jwt"}),
    "client_secret": frozenset({"client_credentials"}),
    "key_file": frozenset({"private_key_jwt"}),
    "other_key_file": frozenset({"private_key_jwt"}),
    "jwks_url": frozenset({"private_key_jwt"}),
    "service_account_file": frozenset({"jwt_bearer"}),
    "token_url": _WITH_TOKEN_URL,
    "scope": _WITH_TOKEN_URL,
}


def configured_login(
    name: str, own: DestinationSettings, preset: Preset, bases: Mapping[FhirVersion, str]
) -> Login:
    """How a destination is logged in to. Raises ConfigurationError with the setting to change."""
    login = own.destination_login or preset.login
    for key, logins in _OF_LOGINS.items():
        if getattr(own, PREFIX + key) and login not in logins:
            raise ConfigurationError(
                f"The destination {name!r} has {key}, which is for the login"
                f" {' or '.join(sorted(logins))}, and its login is {login}. Set login (in the"
                " environment UPLIFT_DESTINATION_LOGIN), or leave it out."
            )
    _check_token_url(name, own.destination_token_url, bases)
    match login:
        case "oneup":
            return OneUpLogin()
        case "bearer":
            return BearerLogin(_needed(own.destination_token_file, "token_file", name))
        case "basic":
            return BasicLogin(
                _needed(own.destination_user, "user", name),
                _needed(own.destination_password, "password", name),
            )
        case "client_credentials":
            return ClientCredentialsLogin(
                token_url=own.destination_token_url or preset.token_url,
                client_id=_needed(own.destination_client_id, "client_id", name),
                secret=_needed(own.destination_client_secret, "client_secret", name),
                scope=_scope(name, own, preset, bases),
                style=ClientStyle(own.destination_client_style),
            )
        case "private_key_jwt":
            return PrivateKeyLogin(
                client_id=_needed(own.destination_client_id, "client_id", name),
                key_file=_needed(own.destination_key_file, "key_file", name),
                other_key_file=own.destination_other_key_file,
                jwks_url=own.destination_jwks_url,
                token_url=own.destination_token_url or preset.token_url,
                scope=_scope(name, own, preset, bases),
            )
        case "jwt_bearer":
            return ServiceAccountLogin(
                file=_needed(own.destination_service_account_file, "service_account_file", name),
                scope=_needed(_scope(name, own, preset, bases), "scope", name),
                token_url=own.destination_token_url,
            )
    return NoLogin()


def _check_token_url(name: str, token_url: str, bases: Mapping[FhirVersion, str]) -> None:
    """A base with TLS says that the network is not trusted; a secret must not cross it either."""
    with_tls = any(base.startswith("https://") for base in bases.values())
    if with_tls and token_url.startswith("http://"):
        raise ConfigurationError(
            f"The token_url of the destination {name!r} begins with http://, and its base with"
            " https://: the login would cross the network for everybody to read. Set the address"
            " with https:// (in the environment UPLIFT_DESTINATION_TOKEN_URL)."
        )


def _scope(
    name: str, own: DestinationSettings, preset: Preset, bases: Mapping[FhirVersion, str]
) -> str:
    scope = own.destination_scope or preset.scope
    if "{base}" not in scope:
        return scope
    if len(bases) > 1:
        raise ConfigurationError(
            f"The destination {name!r} has {len(bases)} bases, and a token of its kind of server is"
            " good for one. Make a destination of each, or set scope (in the environment"
            " UPLIFT_DESTINATION_SCOPE)."
        )
    (base,) = bases.values()
    return scope.replace("{base}", base)


def _needed(value: _Value | None, key: str, name: str) -> _Value:
    if not value:
        raise ConfigurationError(
            f"The login of the destination {name!r} needs {key} (in the environment"
            f" UPLIFT_DESTINATION_{key.upper()})."
        )
    return value
