"""A secret may be in a file: UPLIFT_MASTER_KEYS_FILE names it in place of UPLIFT_MASTER_KEYS.

systemd's credentials and Compose's secrets are such files. A variable is in the environment of
every child, and in what many tools print about a process. A file is read once, at the start.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from uplift.errors import ConfigurationError

FLOWER_SECRETS = ("FLOWER_BASIC_AUTH", "FLOWER_OAUTH2_SECRET", "FLOWER_COOKIE_SECRET")
"""Flower's own variables that are secrets. Ours are in `uplift.settings`."""

_SUFFIX = "_FILE"
# A key ring has some hundred bytes. /dev/zero, named by mistake, must not fill the memory.
_MAX_CHARACTERS = 1024 * 1024


def read_secret(name: str, environment: Mapping[str, str]) -> str | None:
    """The secret of that name, or None if it is not set. An empty variable counts as not set.

    Raises ConfigurationError with the name of the variable, never with what it holds.
    """
    value, file = environment.get(name), environment.get(name + _SUFFIX)
    if not file:
        return value or None
    if value:
        raise ConfigurationError(f"{name} and {name}{_SUFFIX} are both set. Set one of them.")
    try:
        with Path(file).open(encoding="utf-8", newline="") as text:
            secret = text.read(_MAX_CHARACTERS).removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigurationError(
            f"The file that {name}{_SUFFIX} names cannot be read ({error.strerror})."
        ) from None
    except ValueError:
        raise ConfigurationError(f"The file that {name}{_SUFFIX} names is not text.") from None
    if not secret:
        raise ConfigurationError(f"The file that {name}{_SUFFIX} names is empty.")
    return secret


def with_secrets(names: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the secrets of these names themselves, in place of their files' names.

    Raises ConfigurationError as `read_secret` does.
    """
    found = dict(environment)
    for name in names:
        secret = read_secret(name, environment)
        found.pop(name + _SUFFIX, None)
        if secret is not None:
            found[name] = secret
    return found
