"""Says what is wrong with a parameter or a field, for a person who reads no regular expressions."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from uplift.api.schemas import RESOURCE_TYPE
from uplift.api.user_schemas import VISIBLE
from uplift.users.names import NOT_PRINTABLE, PRINTABLE
from uplift.users.patients import NO_PATIENT_ID, PATIENT_ID

PATTERNS: Mapping[str, str] = MappingProxyType(
    {
        PRINTABLE: NOT_PRINTABLE,
        RESOURCE_TYPE: "The name of a FHIR type has 1 to 64 letters, and nothing else.",
        VISIBLE: "A token has no spaces, and no characters but those of ASCII that one sees.",
        PATIENT_ID: NO_PATIENT_ID,
    }
)
"""What a text lacks that does not match: for each pattern of the models."""


def what_is_wrong(error: Mapping[str, Any]) -> str:
    """The words of one of pydantic's errors, or ours in place of them. Never the input."""
    pattern = error.get("ctx", {}).get("pattern")
    # Pydantic puts its own words before ours.
    return PATTERNS.get(pattern) or str(error["msg"]).removeprefix("Value error, ")
