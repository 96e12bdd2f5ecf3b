"""Where the key ring comes from: a setting, or a folder that is read again while Uplift runs.

The folder has a file for each key, named by the key's id, with its 32 bytes in base64. The file
`in_use` has the id of the one that wraps. Names that begin with a dot are passed over: a secret
that Kubernetes mounts has some.
"""

import asyncio
from pathlib import Path

import structlog

from uplift.errors import ConfigurationError
from uplift.sealing import KeyRing, decode_key
from uplift.settings import Settings

_log = structlog.get_logger(__name__)

IN_USE = "in_use"
"""The file that names the key in use."""

READ_SECONDS = 5.0
"""The folder is read again so often."""

_MAX_BYTES = 4096


def read_key_ring(settings: Settings) -> KeyRing:
    """The key ring of the master keys. Raises ConfigurationError if it is missing or malformed."""
    keys, folder = settings.master_keys, settings.master_keys_dir
    if folder is not None:
        if keys is not None:
            raise ConfigurationError(
                "UPLIFT_MASTER_KEYS and UPLIFT_MASTER_KEYS_DIR are both set. Set one of them."
            )
        return read_folder(folder)
    return KeyRing.parse(keys.get_secret_value() if keys is not None else "")


def read_folder(folder: Path) -> KeyRing:
    """The key ring in a folder. Raises ConfigurationError, which never says what a file holds."""
    try:
        found = {
            file.name: _read(file)
            for file in sorted(folder.iterdir())
            if not file.name.startswith(".") and file.is_file()
        }
    except OSError as error:
        raise ConfigurationError(
            f"The folder of UPLIFT_MASTER_KEYS_DIR cannot be read ({error.strerror})."
        ) from None
    in_use = found.pop(IN_USE, "")
    keys = {name: _key(name, text) for name, text in found.items()}
    if in_use not in keys:
        raise ConfigurationError(
            f"UPLIFT_MASTER_KEYS_DIR: the file {IN_USE} must have the name of the file whose key is"
            " in use."
        )
    return KeyRing({in_use: keys.pop(in_use), **keys})


def _read(file: Path) -> str:
    try:
        with file.open(encoding="ascii") as text:
            return text.read(_MAX_BYTES).strip()
    except ValueError:
        raise ConfigurationError(
            f"UPLIFT_MASTER_KEYS_DIR: the file {file.name!r} is not text."
        ) from None


def _key(name: str, text: str) -> bytes:
    key = decode_key(text)
    if key is None:
        raise ConfigurationError(
            f"UPLIFT_MASTER_KEYS_DIR: the file {name!r} is not the base64 of 32 bytes."
            " `uplift keys master` prints a key: its part after the colon belongs into the file."
        )
    return key


async def follow_folder(folder: Path, key_ring: KeyRing, *, seconds: float = READ_SECONDS) -> None:
    """Read the folder again and again, and let the key ring have what is in it. Never ends.

    What cannot be read leaves the key ring as it is.
    """
    told = ""
    while True:
        await asyncio.sleep(seconds)
        try:
            found = await asyncio.to_thread(read_folder, folder)
        except ConfigurationError as error:
            if str(error) != told:
                told = str(error)
                _log.error("key_ring_not_read", why=told)
            continue
        told = ""
        if key_ring.take(found):
            _log.info("key_ring_changed", keys=list(key_ring.ids))
