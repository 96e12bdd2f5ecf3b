"""The keys of the destinations' logins: are they usable, and which are shown to the servers."""

from collections.abc import Iterable, Mapping

from uplift.destinations.destination import (
    Destination,
    Login,
    PrivateKeyLogin,
    ServiceAccountLogin,
)
from uplift.tokens.service_account import read_service_account
from uplift.tokens.signing_keys import SigningKey, read_key


def check_keys(destinations: Mapping[str, Destination]) -> None:
    """Read the key files of every login. Raises UnusableKey for the first that cannot be used."""
    for destination in destinations.values():
        signing_key(destination.login)
    shown_keys(destinations.values())


def signing_key(login: Login) -> SigningKey | None:
    """The key that signs for a login; None if nothing is signed. Raises UnusableKey."""
    match login:
        case PrivateKeyLogin():
            return read_key(login.key_file)
        case ServiceAccountLogin(file):
            return read_service_account(file).key
    return None


def shown_keys(destinations: Iterable[Destination]) -> list[SigningKey]:
    """The keys by which servers verify what these destinations' logins sign: those of the JWKS.

    Raises UnusableKey.
    """
    found = []
    for destination in destinations:
        if isinstance(login := destination.login, PrivateKeyLogin):
            found.append(read_key(login.key_file))
            if login.other_key_file is not None:
                found.append(read_key(login.other_key_file, signs=False))
    return found
