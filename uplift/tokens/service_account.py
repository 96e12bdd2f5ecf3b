"""A Google service account, as the JSON file of its key describes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from uplift.errors import UnusableKey
from uplift.tokens.signing_keys import SigningKey, rsa_key

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Who asks, with which key, and where."""

    email: str
    key: SigningKey
    token_url: str


def read_service_account(file: Path) -> ServiceAccount:
    """The service account in a file. Raises UnusableKey with what to do, and nothing of the key."""
    try:
        with file.open("rb") as stream:
            account = orjson.loads(stream.read(_MAX_BYTES))
    except OSError as error:
        raise UnusableKey(
            "key_file_unreadable",
            f"The service account's file {file} cannot be read ({error.strerror}).",
        ) from None
    except orjson.JSONDecodeError:
        raise _wrong(file, "is not JSON") from None
    if not isinstance(account, dict) or account.get("type") != "service_account":
        raise _wrong(file, "does not say that it is of the type service_account")
    key = rsa_key(_text(account, "private_key", file), _text(account, "private_key_id", file))
    if key is None:
        raise _wrong(file, "has a private_key that is no RSA key of at least 2048 bits")
    token_url = _text(account, "token_uri", file)
    if not token_url.startswith(("https://", "http://")):
        raise _wrong(file, "has a token_uri that is no address")
    return ServiceAccount(_text(account, "client_email", file), key, token_url)


def _text(account: dict[str, Any], name: str, file: Path) -> str:
    found = account.get(name)
    if not isinstance(found, str) or not found:
        raise _wrong(file, f"has no {name}")
    return found


def _wrong(file: Path, what: str) -> UnusableKey:
    return UnusableKey(
        "key_file_wrong",
        f"The service account's file {file} {what}. It must be a key of the account, made in"
        " Google Cloud's console or by `gcloud iam service-accounts keys create`, as JSON.",
    )
