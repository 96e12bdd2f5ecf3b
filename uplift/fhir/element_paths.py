"""The place in a resource that somebody else names, if it is made of that version's definitions.

Anything else is dropped: it may be a value of the record, or a map's key that is one.
"""

import re
from collections.abc import Mapping
from typing import Any

from uplift.fhir.compiled import definition, resource_types
from uplift.fhir.versions import FhirVersion

_MAX_CHARACTERS = 300
_STEP = re.compile(r"([A-Za-z][A-Za-z0-9]{0,63})(?:\[([0-9]{1,3})\])?", re.ASCII)
_REFERENCE = "#/definitions/"


def element_path(version: FhirVersion, resource_type: str, text: object) -> str | None:
    """The element of that type that this FHIRPath or XPath names, as `Patient.name[0].given`.

    None for anything else.

    `text` comes from a server's `expression` or `location`. XPath counts from 1. Source:
    https://hl7.org/fhir/R4/operationoutcome-definitions.html#OperationOutcome.issue.expression
    """
    if not isinstance(text, str) or len(text) > _MAX_CHARACTERS:
        return None
    is_xpath = "/" in text
    words = text.removeprefix("/").replace("f:", "").split("/") if is_xpath else text.split(".")
    steps = [_STEP.fullmatch(word) for word in words]
    first = steps[0]
    if first is None or first[0] != resource_type or resource_type not in resource_types(version):
        return None
    found: Mapping[str, Any] | None = definition(version, first[1])
    path = first[1]
    for step in steps[1:]:
        if step is None or found is None:
            return None
        name, index = step.groups()
        properties: Mapping[str, Any] = found.get("properties", {})
        if name in properties:
            if index is not None and "items" not in properties[name]:
                return None
            found = _referred(version, properties[name])
        elif any(re.match(f"{name}[A-Z]", each) for each in properties):
            if index is not None:
                return None
            found = None  # a choice, such as `value`: which type it has is not said
        else:
            return None
        path += f".{name}"
        if index is not None:
            path += f"[{max(0, int(index) - is_xpath)}]"
    return path


def _referred(version: FhirVersion, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The definition of an element's type; None if nothing below it has a name of its own."""
    reference = schema.get("items", schema).get("$ref", "")
    if not reference.startswith(_REFERENCE):
        return None
    found = definition(version, reference.removeprefix(_REFERENCE))
    return found if "properties" in found else None
