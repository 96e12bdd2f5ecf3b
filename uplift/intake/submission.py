"""Submissions: resources as they come, parsed but not validated. Pure, except for a thread."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from uplift.errors import UnreadableUpload
from uplift.fhir.versions import FhirVersion
from uplift.identity import canonical, without_version_metadata
from uplift.intake.labels import Labels, check_envelope, check_labels, not_json, open_envelope
from uplift.intake.repeated_names import count_colons, quoted, repeated_name
from uplift.json_values import has_more_values
from uplift.problem_types import ProblemType

MAX_INLINE_BYTES = 64 * 1024
"""For fewer bytes, a thread costs more time than it saves the event loop."""

_TYPE = re.compile(r"[A-Za-z]{1,64}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.]{1,16}", re.ASCII)

_Done = TypeVar("_Done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A parsed resource: its bytes as they came, and what they say.

    `content` is `uplift.identity.canonical` of it, without its version metadata. No object in it
    has a name twice.
    """

    labels: Labels
    fhir_version: str
    resource_type: str
    resource: dict[str, Any]
    content: bytes
    body: bytes


def parse(body: bytes, labels: Labels) -> Submission:
    """Parse a bare resource, or an envelope around one.

    The envelope's labels win over `labels`. A worker validates the resource itself later. Raises
    UnreadableUpload that says what to change.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise not_json(body) from None
    if not isinstance(value, dict):
        raise UnreadableUpload(
            ProblemType.NOT_A_RESOURCE,
            "The body is not a JSON object. Send a single FHIR resource here, and many to"
            " /v1/batches.",
        )
    whole, around = body, 0
    if "resourceType" not in value and "resource" in value:
        around = check_envelope(value)
        body, labels = open_envelope(body, labels)
        value = value["resource"]
        if not isinstance(value, dict):
            raise UnreadableUpload(
                ProblemType.NOT_A_RESOURCE, "The envelope's resource is not a JSON object."
            )
    resource_type = _resource_type(value)
    version = version_of(labels)
    if version is None:
        raise UnreadableUpload(
            ProblemType.FHIR_VERSION,
            "There is no fhirVersion. Send what HealthKit says: DSTU2, STU3 or R4"
            " (or 1.0.2, 3.0.1, 4.0.1).",
        )
    check_labels(labels)
    try:
        everything = canonical(value)
        kept = without_version_metadata(value)
        content = everything if kept is value else canonical(kept)
    except ValueError as error:
        raise UnreadableUpload(
            ProblemType.UNSTORABLE_TEXT, f"The resource cannot be kept. {error}"
        ) from None
    if count_colons(whole) != everything.count(b":") + around:
        raise names_repeated(whole)
    return Submission(
        labels=labels,
        fhir_version=version.value,
        resource_type=resource_type,
        resource=value,
        content=content,
        body=body,
    )


def parse_version(text: str) -> FhirVersion:
    """The FHIR version that a caller names. Raises UnreadableUpload for one that has no schema."""
    version = FhirVersion.parse(text) if _VERSION.fullmatch(text) else None
    if version is None:
        raise UnreadableUpload(
            ProblemType.FHIR_VERSION,
            "fhirVersion is not a version that Uplift delivers. Send DSTU2, STU3 or R4 (or 1.0.2,"
            " 3.0.1, 4.0.1).",
        )
    return version


def version_of(labels: Labels) -> FhirVersion | None:
    """The FHIR version that the labels name, or else the Content-Type; None if neither does.

    Raises UnreadableUpload for one that has no schema, and for two that contradict each other. The
    parameter of the Content-Type is https://hl7.org/fhir/R4/http.html#version-parameter.
    """
    declared = labels.media_type_version
    if labels.fhir_version is None:
        return None if declared is None else parse_version(declared)
    version = parse_version(labels.fhir_version)
    if declared is not None and FhirVersion.parse(declared) is not version:
        is_safe = _VERSION.fullmatch(declared)
        shown = f"the fhirVersion {declared}" if is_safe else "a fhirVersion that is none"
        raise UnreadableUpload(
            ProblemType.FHIR_VERSION,
            f"The Content-Type names {shown}, and the record's fhirVersion is {version}. Send the"
            " same in both, or none in the Content-Type.",
        )
    return version


def names_repeated(text: bytes) -> UnreadableUpload:
    """The error for a text in which an object has a name twice."""
    name = quoted(repeated_name(text) or "")
    return UnreadableUpload(
        ProblemType.REPEATED_NAME,
        f"An object has a name twice{name and ':' + name}. Readers of JSON do not agree which of"
        " the two counts. Send one.",
    )


def check_values(body: bytes, limit: int) -> None:
    """Raises UnreadableUpload if the text holds more JSON values than `limit`."""
    if has_more_values(body, limit):
        raise UnreadableUpload(
            ProblemType.TOO_MANY_VALUES,
            f"The body has more than {limit} JSON values, the limit of one body"
            " (UPLIFT_MAX_JSON_VALUES). Send less at once.",
        )


async def parse_unblocked(body: bytes, labels: Labels, max_values: int) -> Submission:
    """`parse`, which does not block the event loop for a large body, after `check_values`."""

    def checked() -> Submission:
        check_values(body, max_values)
        return parse(body, labels)

    return await run_unblocked(len(body), checked)


async def run_unblocked(size: int, work: Callable[[], _Done]) -> _Done:
    """Do work on `size` bytes: in a thread if these are many, so that the event loop goes on."""
    return await asyncio.to_thread(work) if size > MAX_INLINE_BYTES else work()


def _resource_type(resource: dict[str, Any]) -> str:
    resource_type = resource.get("resourceType")
    if not isinstance(resource_type, str) or not _TYPE.fullmatch(resource_type):
        raise UnreadableUpload(
            ProblemType.NOT_A_RESOURCE,
            "There is no resourceType that could be a FHIR type. Send a FHIR resource, or an"
            " envelope {user, fhirVersion, source, recordId, …, resource}.",
        )
    if resource_type == "Bundle":
        raise UnreadableUpload(
            ProblemType.SEND_AS_BATCH,
            "The resource is a Bundle. Send it to /v1/batches: each of its entries becomes an"
            " upload of its own.",
        )
    return resource_type
