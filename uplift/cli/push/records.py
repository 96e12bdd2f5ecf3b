"""One record of a file: its unchanged bytes, and what an upload must say about it."""

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from uplift.errors import UpliftError

MAX_RECORD_BYTES = 32 * 1024 * 1024
"""A larger file or line is skipped. The API accepts less, and memory holds more."""


@dataclass(frozen=True, slots=True)
class Record:
    """A FHIR resource ready to send."""

    label: str
    """Its file or line, for messages."""
    fhir_version: str
    """As in the file: `DSTU2` or `1.0.2`, `R4` or `4.0.1`."""
    resource_type: str
    body: bytes
    """The resource exactly as it is in the file."""
    source: str | None = None
    record_id: str | None = None
    hospital: str | None = None
    """The name of where it comes from, for a person."""
    date: str | None = None
    """The day that it is about."""
    source_url: str | None = None
    received_at: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that should be a record and cannot be sent."""

    label: str
    reason: str
    resource_type: str | None = None
    hospital: str | None = None


class UnreadableSource(UpliftError):
    """The file or folder cannot be read, or not to its end. The message says what to do."""


class _Sent(msgspec.Struct, rename="camel"):
    """Either a resource or an envelope around one; other members are ignored."""

    resource_type: str | None = None
    fhir_version: str | None = None
    source: str | None = None
    record_id: str | None = None
    source_url: str | None = None
    received_at: str | None = None
    # Raw keeps the resource's own bytes: to decode and encode them would change what the hospital
    # wrote (0.40 becomes 0.4).
    resource: msgspec.Raw = msgspec.Raw(b"")


class _Resource(msgspec.Struct, rename="camel"):
    resource_type: str | None = None


class _Dated(msgspec.Struct, rename="camel"):
    """Where resources say the day that they are about, the best first."""

    effective_date_time: Any = None
    effective_period: Any = None
    onset_date_time: Any = None
    performed_date_time: Any = None
    performed_period: Any = None
    occurrence_date_time: Any = None
    period: Any = None
    date_written: Any = None
    authored_on: Any = None
    date_asserted: Any = None
    recorded_date: Any = None
    date_recorded: Any = None
    asserted_date: Any = None
    issued: Any = None
    date: Any = None
    created: Any = None
    when_handed_over: Any = None
    indexed: Any = None


# Two decoders, because a bare resource may have an element `source` that is not a string.
_SENT: msgspec.json.Decoder[_Sent] = msgspec.json.Decoder(_Sent)
_RESOURCE: msgspec.json.Decoder[_Resource] = msgspec.json.Decoder(_Resource)
_DATED: msgspec.json.Decoder[_Dated] = msgspec.json.Decoder(_Dated)
_DAY = re.compile(r"\d{4}(?:-\d{2}){0,2}")
_NO_VERSION = "states no FHIR version; give the version of its server with --fhir-version"
_NO_RESOURCE = "not a JSON object with a resourceType"


def resource_type_of(body: bytes) -> str | None:
    """The body's resourceType; None if it is no JSON object or has none."""
    try:
        return _RESOURCE.decode(body).resource_type
    except (msgspec.DecodeError, RecursionError):
        return None


def date_of(body: bytes) -> str | None:
    """The day, month or year that a resource is about; None if it does not say."""
    try:
        dated = _DATED.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    for value in msgspec.structs.astuple(dated):
        text = value.get("start") if isinstance(value, dict) else value
        found = _DAY.match(text) if isinstance(text, str) else None
        if found is not None:
            return found[0]
    return None


def parse_record(data: bytes, label: str, *, fhir_version: str | None) -> Record | Skipped:
    """A record from an envelope `{fhirVersion, source, …, resource}` or a bare resource.

    `fhir_version` is used if the data states none; a bare resource never does.
    """
    bare = resource_type_of(data)
    if bare is not None:
        if fhir_version is None:
            return Skipped(label, _NO_VERSION, bare)
        return Record(label, fhir_version, bare, data, date=date_of(data))
    try:
        sent = _SENT.decode(data)
    except msgspec.ValidationError as error:
        return Skipped(label, f"neither a resource nor an envelope: {error}")
    except (msgspec.DecodeError, RecursionError):
        return Skipped(label, _NO_RESOURCE)
    body = bytes(sent.resource)
    resource_type = resource_type_of(body)
    if resource_type is None:
        return Skipped(label, _NO_RESOURCE)
    version = sent.fhir_version or fhir_version
    if version is None:
        return Skipped(
            label, "the envelope has no fhirVersion; give one with --fhir-version", resource_type
        )
    return Record(
        *(label, version, resource_type, body, sent.source, sent.record_id),
        date=date_of(body),
        source_url=sent.source_url,
        received_at=sent.received_at,
    )
