"""Writes `.env.example` from the settings: `python -m uplift.cli.pages.settings > .env.example`."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from uplift.destination_settings import DestinationSettings
from uplift.settings import Settings, secrets

_DEPLOYMENT = {
    "FLOWER_BASIC_AUTH": "The login of Flower's pages, as user:password. Required by Flower. Or "
    "FLOWER_BASIC_AUTH_FILE.",
}
"""Variables of other programs that a deployment needs. A secret has no default."""


def example() -> str:
    """The text of `.env.example`: every setting with its description and its default."""
    parts = [
        _comment(
            "Uplift's settings with their defaults; an empty value counts as not set. A secret may "
            "be in a file instead: the same name with _FILE behind it names the file. Made from "
            "uplift/settings.py by `python -m uplift.cli.pages.settings > .env.example`."
        )
    ]
    for name, field in _in_order():
        line = f"UPLIFT_{name.upper()}={_written(field.default)}"
        description = field.description or ""
        if name in secrets():
            description += f" Or UPLIFT_{name.upper()}_FILE."
        parts.append(f"{_comment(description)}{line}\n")
    parts.extend(f"{_comment(text)}{name}=\n" for name, text in _DEPLOYMENT.items())
    return "\n".join(parts)


def _in_order() -> Iterator[tuple[str, FieldInfo]]:
    """The settings, those of one destination behind the file of several."""
    for name, field in Settings.model_fields.items():
        if name not in DestinationSettings.model_fields:
            yield name, field
        if name == "destinations_file":
            yield from DestinationSettings.model_fields.items()


def _written(default: object) -> str:
    match default:
        case None:
            return ""
        case dict() if not default:
            return ""
        case SecretStr():
            return default.get_secret_value()
        case bool():
            return str(default).lower()
        case str() | int() | float() | Path():
            return str(default)
        case _:
            raise TypeError(f"A default of this type cannot be written: {default!r}.")


def _comment(text: str) -> str:
    if not text:
        return ""
    filled = textwrap.fill(
        text, 100, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
    return filled + "\n"


if __name__ == "__main__":
    sys.stdout.write(example())
