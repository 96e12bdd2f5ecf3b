"""FHIR's primitive types as JSON Schema.

Sources: the `regex` extensions in HL7's StructureDefinitions of the primitive types and the tables
in https://hl7.org/fhir/R4/datatypes.html#primitive (also for STU3 and DSTU2). HL7's patterns
accept 31 February, these do not: the specification's text requires valid dates.
"""

from typing import Any

from uplift.fhir.versions import FhirVersion

Schema = dict[str, Any]

_MONTH = "(?:0[1-9]|1[0-2])"
_DAY_OF_MONTH = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_LEAP_DAY = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29"
_ZONE = "(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"

# Tab, line feed and carriage return are the only control characters, and a blank string is none
# ("Strings SHALL NOT be empty", https://hl7.org/fhir/R4/datatypes.html#string).
_TEXT = r"^[ \t\r\n]*[^\x00-\x20][^\x00-\x08\x0B\x0C\x0E-\x1F]*$"
_TEXT_LENGTH = 1024 * 1024

_SPACE = r"[ \t\r\n]*"
_SIX_BITS = f"[A-Za-z0-9+/]{_SPACE}"
_BASE64 = (
    f"^{_SPACE}(?:(?:{_SIX_BITS}){{4}})*"
    f"(?:(?:{_SIX_BITS}){{4}}|(?:{_SIX_BITS}){{3}}={_SPACE}|(?:{_SIX_BITS}){{2}}(?:={_SPACE}){{2}})$"
)


def primitive_schemas(version: FhirVersion) -> dict[str, Schema]:
    """The schema of every primitive type of the version, by name."""
    r4 = version is FhirVersion.R4
    year = "[0-9]{4}" if r4 else "-?[0-9]{4}"
    day = f"(?:{year}-{_DAY_OF_MONTH}|{_LEAP_DAY})"
    seconds = "(?:[0-5][0-9]|60)" if r4 else "[0-5][0-9]"
    time = f"(?:[01][0-9]|2[0-3]):[0-5][0-9]:{seconds}(?:\\.[0-9]+)?"

    text: Schema = {"type": "string", "pattern": _TEXT, "maxLength": _TEXT_LENGTH}
    uri: Schema = {"type": "string", "pattern": r"^\S+$"}
    schemas: dict[str, Schema] = {
        "boolean": {"type": "boolean"},
        # In Draft 4, unlike later drafts, 1.0 is not an integer. In FHIR neither.
        "integer": _integer(-(2**31)),
        "unsignedInt": _integer(0),
        "positiveInt": _integer(1),
        "decimal": {"type": "number"},
        "string": text,
        "markdown": text,
        # Attachments in narratives can make these longer than the limit of a string.
        "xhtml": {"type": "string", "pattern": _TEXT},
        "code": {"type": "string", "pattern": r"^\S+(?:\s\S+)*$"},
        "id": {"type": "string", "pattern": r"^[A-Za-z0-9.\-]{1,64}$"},
        "uri": uri,
        "oid": {"type": "string", "pattern": r"^urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+$"},
        "uuid": {
            "type": "string",
            "pattern": "^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        },
        "base64Binary": {"type": "string", "pattern": _BASE64},
        "date": {"type": "string", "pattern": f"^(?:{year}(?:-{_MONTH})?|{day})$"},
        "dateTime": {
            "type": "string",
            "pattern": f"^(?:{year}(?:-{_MONTH})?|{day}(?:T{time}{_ZONE})?)$",
        },
        "instant": {"type": "string", "pattern": f"^{day}T{time}{_ZONE}$"},
        "time": {"type": "string", "pattern": f"^{time}$"},
    }
    if r4:
        schemas |= {"url": uri, "canonical": uri}
    return schemas


def _integer(least: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": 2**31 - 1}


def or_null(schema: Schema) -> Schema:
    """The schema with null allowed: an item of a primitive array may be null where the item of
    the `_` array beside it says why (https://hl7.org/fhir/R4/json.html#primitive)."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    return {**schema, "type": [schema["type"], "null"]}
