"""Envelope encryption: each user has a random data key, wrapped by a key of the key ring. Pure.

A sealed value is `1 byte format · 12 bytes nonce · AES-256-GCM ciphertext and tag`. Its associated
data names its row, so it does not open in another row. When a user's wrapped key is erased,
everything sealed under it is unreadable at once.
"""

import base64
import os
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from uplift.errors import ConfigurationError, SealError

_FORMAT = b"\x01"
_NONCE_BYTES = 12  # the length that NIST SP 800-38D recommends for GCM
_KEY_BYTES = 32


def _seal(cipher: AESGCM, plaintext: bytes, context: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return _FORMAT + nonce + cipher.encrypt(nonce, plaintext, context)


def _open(cipher: AESGCM, sealed: bytes, context: bytes) -> bytes:
    if sealed[:1] != _FORMAT:
        raise SealError("A sealed value has a format that this version of Uplift does not know.")
    start = len(_FORMAT) + _NONCE_BYTES
    try:
        return cipher.decrypt(sealed[len(_FORMAT) : start], sealed[start:], context)
    except (InvalidTag, ValueError) as error:
        raise SealError("A sealed value does not open with the key of its row.") from error


def decode_key(encoded: str) -> bytes | None:
    """The key of this base64; None if it is none of a key."""
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:  # binascii.Error is one too
        return None
    return key if len(key) == _KEY_BYTES else None


class UserKey:
    """A data key, of a user or of the deployment. Its bytes leave this object only wrapped."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "UserKey(…)"

    @classmethod
    def generate(cls) -> "UserKey":
        """A new random data key."""
        return cls(os.urandom(_KEY_BYTES))

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt. `context` names the row and the column; `open` needs the same one."""
        return _seal(self._cipher, plaintext, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt.

        Raises SealError if another key sealed the value, or if it is of another row, or altered.
        """
        return _open(self._cipher, sealed, context)

    @cached_property
    def _cipher(self) -> AESGCM:
        return AESGCM(self._key)

    @cached_property
    def identity_key(self) -> bytes:
        """The key for the user's record identities and digests."""
        return self._derived(b"uplift identity")

    @cached_property
    def credential_key(self) -> bytes:
        """The key that signs credentials, if this is the deployment's key for them."""
        return self._derived(b"uplift credentials")

    @cached_property
    def audit_key(self) -> bytes:
        """The key that seals the audit trail, if this is the deployment's key for it."""
        return self._derived(b"uplift audit")

    def _derived(self, info: bytes) -> bytes:
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=info).derive(self._key)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as the ledger keeps it: the id of the master key, and the sealed bytes."""

    master_id: str
    sealed: bytes


class KeyRing:
    """The master keys. The first is in use, the others only open what they wrapped before."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        if not keys:
            raise ConfigurationError(_HOW_TO_MAKE_A_KEY_RING)
        self._keys = keys
        self.current = next(iter(keys))

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    def take(self, other: "KeyRing") -> bool:
        """Have the keys of another key ring from now on. False if it has them already."""
        keys = other._keys  # noqa: SLF001  of the same class
        if (self._keys, self.current) == (keys, other.current):
            return False
        self._keys, self.current = keys, other.current
        return True

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, the one in use first."""
        return tuple(self._keys)

    @classmethod
    def parse(cls, text: str) -> "KeyRing":
        """A key ring from `id:base64,id:base64`, the key in use first.

        Raises ConfigurationError, which names the wrong entry without its key.
        """
        keys: dict[str, bytes] = {}
        for position, entry in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
            master_id, _, encoded = entry.partition(":")
            key = decode_key(encoded)
            if not master_id or key is None:
                raise ConfigurationError(
                    f"UPLIFT_MASTER_KEYS: entry {position} is not id:base64 of {_KEY_BYTES} bytes."
                    " `uplift keys master` prints a new one."
                )
            if master_id in keys:
                raise ConfigurationError(
                    f"UPLIFT_MASTER_KEYS: the id {master_id!r} occurs twice. Give each key its own."
                )
            keys[master_id] = key
        return cls(keys)

    @staticmethod
    def new_entry(master_id: str) -> str:
        """A new random `id:base64` for the environment."""
        return f"{master_id}:{base64.b64encode(os.urandom(_KEY_BYTES)).decode()}"

    def wrap(self, key: UserKey, context: bytes) -> WrappedKey:
        """Wrap a data key with the master key in use. `context` names the user."""
        return WrappedKey(self.current, _seal(AESGCM(self._keys[self.current]), key._key, context))  # noqa: SLF001

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> UserKey:
        """Unwrap a data key.

        Raises SealError if its master key is not on the key ring, or if the key ring has another
        key under that id.
        """
        try:
            master = self._keys[wrapped.master_id]
        except KeyError:
            raise SealError(
                f"A user's data key is wrapped by the master key {wrapped.master_id!r}, which is"
                " not in UPLIFT_MASTER_KEYS. Put it back, behind the one in use."
            ) from None
        return UserKey(_open(AESGCM(master), wrapped.sealed, context))


_HOW_TO_MAKE_A_KEY_RING = (
    "UPLIFT_MASTER_KEYS is not set. `uplift keys master` prints a new key. Keep it with your"
    " secrets: without it nobody can read what it sealed."
)
