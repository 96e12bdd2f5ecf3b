"""What 1upHealth's own recorded responses show of what it stores: `--like oneup-recorded`."""

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Any

IDENTIFIER_SYSTEM = "https://api.1up.health/fhir"
"""Of the identifier that is added. Which one the real server adds is not recorded."""

_FIRST_VERSION = 9_000_000_000_000
_ID_BYTES = 24
_RELATIVE = re.compile(r"([A-Z][A-Za-z]*)/([^/#?]+)")

FindId = Callable[[str, str], str | None]
"""From a type and the id that a resource came with to the id that it got, if it is there."""


def new_id() -> str:
    """An id as the server gives them: 48 hexadecimal digits."""
    return secrets.token_hex(_ID_BYTES)


def version_id(number: int) -> str:
    """The versionId of a resource's version, of which the first has number 1."""
    return str(_FIRST_VERSION + number - 1)


def as_recorded(resource: dict[str, Any], id_: str, find_id: FindId) -> dict[str, Any]:
    """The resource with one identifier more, and with references to ids of the server's."""
    stored: dict[str, Any] = _rewritten(resource, find_id)
    identifiers = stored.get("identifier", [])
    if isinstance(identifiers, list):
        stored["identifier"] = [*identifiers, {"system": IDENTIFIER_SYSTEM, "value": id_}]
    return stored


def _rewritten(value: Any, find_id: FindId) -> Any:
    if isinstance(value, list):
        return [_rewritten(each, find_id) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _reference(child, find_id)
        if name == "reference" and isinstance(child, str)
        else _rewritten(child, find_id)
        for name, child in value.items()
    }


def _reference(reference: str, find_id: FindId) -> str:
    found = _RELATIVE.fullmatch(reference)
    if found is None:
        return reference
    resource_type, id_ = found.groups()
    # What is not there yet gets an id all the same.
    known = find_id(resource_type, id_) or hashlib.sha256(reference.encode()).hexdigest()[:48]
    return f"{resource_type}/{known}"
