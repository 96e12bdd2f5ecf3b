"""What must outlive the process, as events in a file: appended as they happen, read at the start.

Records are in it, so each line is sealed: a nonce and AES-256-GCM, in base64.
"""

import base64
import binascii
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_CONTEXT = b"uplift sandbox journal"

Event = dict[str, Any]


class UnreadableJournalError(Exception):
    """A line of the file does not open with this key."""


class Journal:
    """The events of one sandbox. The key is 32 bytes, in hexadecimal digits."""

    def __init__(self, path: Path, key: str) -> None:
        try:
            self._cipher = AESGCM(bytes.fromhex(key))
        except ValueError:
            raise UnreadableJournalError("The key must be 64 hexadecimal digits.") from None
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def read(self) -> Iterator[Event]:
        """All events, oldest first. Raises UnreadableJournalError.

        A last line without its end is dropped: the process was killed while it wrote it.
        """
        content = self._path.read_bytes()
        end = content.rfind(b"\n") + 1
        os.ftruncate(self._file, end)
        for line in content[:end].splitlines():
            try:
                sealed = base64.b64decode(line, validate=True)
                opened = self._cipher.decrypt(
                    sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _CONTEXT
                )
            except (binascii.Error, InvalidTag, ValueError):
                raise UnreadableJournalError(
                    f"{self._path} does not open with this key. Remove it to begin without it."
                ) from None
            yield orjson.loads(opened)

    def append(self, event: Event) -> None:
        """Write one more event."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, orjson.dumps(event), _CONTEXT)
        os.write(self._file, base64.b64encode(sealed) + b"\n")

    def clear(self) -> None:
        """Forget every event."""
        os.ftruncate(self._file, 0)
