"""The ids that Uplift derives for what it stores at a destination. Pure.

They are keyed with the deployment's id key, which is set once and is in no ledger: so a person who
is erased and added again, or whose ledger comes back from a backup, gets the same ids, and nothing
is stored twice. Whoever has that key and a person's name can compute their ids.

A user's own data key would not do: it ends with the user.
"""

import base64
import binascii
import hmac
import secrets

from uplift.errors import ConfigurationError
from uplift.settings import Settings

_BYTES = 32
_HEX_DIGITS = 32


def new_id_key() -> str:
    """A new id key as UPLIFT_ID_KEY takes it."""
    return base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def read_id_key(settings: Settings) -> bytes | None:
    """The id key of the deployment; None if it has none.

    Raises ConfigurationError if it is malformed.
    """
    if settings.id_key is None:
        return None
    try:
        key = base64.b64decode(settings.id_key.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _BYTES:
        raise ConfigurationError(
            "UPLIFT_ID_KEY must be base64 of 32 bytes. `uplift keys id` makes one."
        )
    return key


def derived_id(
    id_key: bytes,
    *,
    app_user_id: str,
    source: str | None,
    fhir_version: str,
    resource_type: str,
    record_id: str | None,
    content: bytes,
) -> str:
    """The id of a record: `u` and 32 hexadecimal digits, which every server takes.

    A record without a record id is known by its `content`, which is `identity.canonical`. The id
    is given once and kept: later labels do not change it.
    """
    named = b"id:" + record_id.encode() if record_id else b"content:" + _digest(id_key, content)
    parts = [app_user_id, source or "", fhir_version, resource_type]
    return _id(id_key, b"record\0", [*(part.encode() for part in parts), named])


def patient_id(id_key: bytes, *, app_user_id: str) -> str:
    """The id of the Patient that stands for a person at a destination, and their pseudonym there.

    One id for all versions: a base is a server's or a store's of its own.
    """
    return _id(id_key, b"patient\0", [app_user_id.encode()])


def source_system(source_key: bytes | None) -> str:
    """The identifier system for the ids of one source, by `identity.source_key`; None is no label.

    The label itself is a hospital's name: it stays here.
    """
    named = source_key.hex()[:_HEX_DIGITS] if source_key is not None else "unlabelled"
    return f"urn:uplift:source:{named}"


def _digest(id_key: bytes, content: bytes) -> bytes:
    return hmac.digest(id_key, b"content\0" + content, "sha256")


def _id(id_key: bytes, purpose: bytes, parts: list[bytes]) -> str:
    # Each part has its length in front. So two different lists never give the same message.
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return "u" + hmac.digest(id_key, purpose + message, "sha256").hex()[:_HEX_DIGITS]
