"""Labels of a resource: what its caller says about it, in the query or in an envelope. Pure."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
import orjson

from uplift.errors import UnreadableUpload
from uplift.intake.repeated_names import quoted
from uplift.problem_types import ProblemType

_MAX_NAME = 1024
_MAX_URL = 4096
# PostgreSQL takes no U+0000 in a text, and UTF-8 no half of a surrogate pair.
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")


class _Envelope(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw
    user: str | None = None
    fhir_version: str | None = None
    source: str | None = None
    record_id: str | None = None
    source_url: str | None = None
    received_at: str | None = None
    force: bool | None = None


_ENVELOPE_NAMES = (
    *("user", "fhirVersion", "source", "recordId", "sourceUrl", "receivedAt", "force"),
    "resource",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What a caller says about a resource. `source_url` is never in a query: it names the record.

    `force` is whether an older version may take the place of a newer one. `media_type_version` is
    the FHIR version that the Content-Type names; it must not contradict `fhir_version`.
    """

    user: str | None = None
    fhir_version: str | None = None
    source: str | None = None
    record_id: str | None = None
    source_url: str | None = None
    received_at: str | None = None
    force: bool | None = None
    media_type_version: str | None = None


_LABELS = tuple(name for name in _Envelope.__struct_fields__ if name != "resource")


def not_json(body: bytes) -> UnreadableUpload:
    """The error for a body that no JSON can be read from. It says what is wrong, and where."""
    if not body.strip():
        return UnreadableUpload(ProblemType.NOT_JSON, "The body is empty. Send JSON.")
    return UnreadableUpload(
        ProblemType.NOT_JSON,
        f"The body is not JSON that can be kept{_first_mistake(body)}. Send RFC 8259 in UTF-8, no"
        " number beyond a double, no half of a surrogate pair, at most 200 levels deep.",
    )


def _first_mistake(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        return f": byte {error.start + 1} is not UTF-8"
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # One of the parser's own sentences, which never has a part of the text.
        return f": {error.msg}, at character {error.pos + 1}"
    return ""


def parse_force(text: str | None) -> bool | None:
    """The `force` of a query. Raises UnreadableUpload for another text than true and false."""
    if text is None:
        return None
    if text not in ("true", "false"):
        raise UnreadableUpload(
            ProblemType.INVALID_ENVELOPE, "force is neither true nor false. Send one of them."
        )
    return text == "true"


def check_labels(labels: Labels) -> None:
    """Raises UnreadableUpload for labels that cannot be kept."""
    for name, text, limit in (
        ("user", labels.user, _MAX_NAME),
        ("source", labels.source, _MAX_NAME),
        ("recordId", labels.record_id, _MAX_NAME),
        ("sourceUrl", labels.source_url, _MAX_URL),
    ):
        if text:
            _check_text(name, text, limit)
    if labels.received_at:
        _check_time("receivedAt", labels.received_at)


def _check_text(name: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise UnreadableUpload(
            ProblemType.INVALID_ENVELOPE, f"{name} has more than {limit} characters."
        )
    if _UNKEEPABLE.search(text):
        raise UnreadableUpload(
            ProblemType.UNSTORABLE_TEXT, f"{name} contains U+0000, or half of a surrogate pair."
        )


def _check_time(name: str, text: str) -> None:
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:
        raise UnreadableUpload(
            ProblemType.INVALID_ENVELOPE,
            f"{name} is not a time of ISO 8601. Send one such as 2026-11-23T10:00:00Z, or none.",
        ) from None


def check_envelope(envelope: dict[str, Any]) -> int:
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


def open_envelope(body: bytes, labels: Labels) -> tuple[bytes, Labels]:
    """The resource of an envelope, and its labels: those of the envelope win over `labels`.

    Raises UnreadableUpload.
    """
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except msgspec.ValidationError as error:
        # Its text names the field and the types, never a value.
        raise UnreadableUpload(
            ProblemType.INVALID_ENVELOPE, f"The envelope is wrong: {error}."
        ) from None
    except msgspec.DecodeError:
        raise not_json(body) from None
    except RecursionError:
        raise UnreadableUpload(
            ProblemType.INVALID_ENVELOPE, "The envelope's arrays and objects are nested too deep."
        ) from None
    inner = {
        name: value if (value := getattr(envelope, name)) is not None else getattr(labels, name)
        for name in _LABELS
    }
    return bytes(envelope.resource), replace(labels, **inner)
