"""Submissions: resources as they come, parsed but not validated. Pure, except for a thread."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import orjson

from uplift.errors import UnreadableUpload
from uplift.fhir.versions import FhirVersion
from uplift.identity import canonical, without_version_metadata
from uplift.intake.repeated_names import count_colons, quoted, repeated_name
from uplift.json_values import has_more_values
from uplift.problem_types import ProblemType

MAX_INLINE_BYTES = 64 * 1024
"""For fewer bytes, a thread costs more time than it saves the event loop."""

NOT_JSON = (
    "The body is not JSON that can be kept: RFC 8259 in UTF-8, no number beyond a double, no half"
    " of a surrogate pair, at most 200 levels deep."
)
_MAX_NAME = 1024
_TYPE = re.compile(r"[A-Za-z]{1,64}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.]{1,16}", re.ASCII)
_ENVELOPE_NAMES = ("user", "fhirVersion", "source", "recordId", "resource")
# PostgreSQL takes no U+0000 in a text, and UTF-8 no half of a surrogate pair.
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")

_Done = TypeVar("_Done")


class _Envelope(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw
    user: str | None = None
    fhir_version: str | None = None
    source: str | None = None
    record_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What a caller says about a resource: in the query, or in the envelope around it."""

    user: str | None = None
    fhir_version: str | None = None
    source: str | None = None
    record_id: str | None = None


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
        raise UnreadableUpload(ProblemType.NOT_JSON, NOT_JSON) from None
    if not isinstance(value, dict):
        raise UnreadableUpload(
            ProblemType.NOT_A_RESOURCE,
            "The body is not a JSON object. Send a single FHIR resource here, and many to"
            " /v1/batches.",
        )
    whole, around = body, 0
    if "resourceType" not in value and "resource" in value:
        around = _check_envelope(value)
        body, labels = _open_envelope(body, labels)
        value = value["resource"]
        if not isinstance(value, dict):
            raise UnreadableUpload(
                ProblemType.NOT_A_RESOURCE, "The envelope's resource is not a JSON object."
            )
    resource_type = _resource_type(value)
    if labels.fhir_version is None:
        raise UnreadableUpload(
            ProblemType.FHIR_VERSION,
            "There is no fhirVersion. Send what HealthKit says: DSTU2, STU3 or R4"
            " (or 1.0.2, 3.0.1, 4.0.1).",
        )
    version = parse_version(labels.fhir_version)
    for name, text in (
        ("user", labels.user),
        ("source", labels.source),
        ("recordId", labels.record_id),
    ):
        _check_name(name, text or "")
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
            " envelope {user, fhirVersion, source, recordId, resource}.",
        )
    if resource_type == "Bundle":
        raise UnreadableUpload(
            ProblemType.SEND_AS_BATCH,
            "The resource is a Bundle. Send it to /v1/batches: each of its entries becomes an"
            " upload of its own.",
        )
    return resource_type


def _check_name(name: str, text: str) -> None:
    if len(text) > _MAX_NAME:
        raise UnreadableUpload(
            ProblemType.INVALID_ENVELOPE, f"{name} has more than {_MAX_NAME} characters."
        )
    if _UNKEEPABLE.search(text):
        raise UnreadableUpload(
            ProblemType.UNSTORABLE_TEXT, f"{name} contains U+0000, or half of a surrogate pair."
        )


def _check_envelope(envelope: dict[str, Any]) -> int:
    """The colons of an envelope outside its resource.

    Raises UnreadableUpload for a name that envelopes do not have.
    """
    colons = 0
    for name, value in envelope.items():
        if name not in _ENVELOPE_NAMES:
            raise UnreadableUpload(
                ProblemType.INVALID_ENVELOPE,
                f"The envelope has a field{quoted(name)} that is not known. Its fields are"
                f" {', '.join(_ENVELOPE_NAMES[:-1])} and {_ENVELOPE_NAMES[-1]}.",
            )
        colons += 1 + (value.count(":") if isinstance(value, str) else 0)
    return colons


def _open_envelope(body: bytes, labels: Labels) -> tuple[bytes, Labels]:
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except msgspec.ValidationError as error:
        # Its text names the field and the types, never a value.
        raise UnreadableUpload(
            ProblemType.INVALID_ENVELOPE, f"The envelope is wrong: {error}."
        ) from None
    except msgspec.DecodeError:
        raise UnreadableUpload(ProblemType.NOT_JSON, NOT_JSON) from None
    except RecursionError:
        raise UnreadableUpload(
            ProblemType.INVALID_ENVELOPE, "The envelope's arrays and objects are nested too deep."
        ) from None
    return bytes(envelope.resource), Labels(
        user=envelope.user if envelope.user is not None else labels.user,
        fhir_version=(
            envelope.fhir_version if envelope.fhir_version is not None else labels.fhir_version
        ),
        source=envelope.source if envelope.source is not None else labels.source,
        record_id=envelope.record_id if envelope.record_id is not None else labels.record_id,
    )
