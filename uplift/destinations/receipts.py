"""What a destination calls a resource that it stored. Pure."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import httpx

# [base]/[type]/[id]/_history/[vid], https://hl7.org/fhir/http.html#create
_LOCATION = re.compile(r"(?:^|/)([A-Za-z]+)/([^/?#]+)(?:/_history/([^/?#]+))?/?$")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the destination calls the resource it stored.

    `assigned` is whether a create was answered with another id than the one that was sent.
    """

    id: str | None
    version: str | None
    stored_at: datetime | None = None  # by the destination's clock
    assigned: bool = field(default=False, compare=False)


def receipt_of(headers: httpx.Headers, stored: dict[str, Any]) -> Receipt:
    """What the destination calls a resource that it gave: by the resource, else by the headers."""
    meta = stored.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    version = meta.get("versionId")
    resource_id = stored.get("id")
    located = _LOCATION.search(headers.get("location", ""))
    if located is None or located[1] != stored["resourceType"]:
        located = None
    if not isinstance(version, str) or not version:
        version = headers.get("etag", "").removeprefix("W/").strip('"') or None
        if version is None and located is not None:
            version = located[3]
    if not isinstance(resource_id, str) or not resource_id:
        resource_id = unquote(located[2]) if located is not None else None
    return Receipt(resource_id, version, _instant(meta.get("lastUpdated")))


def _instant(text: Any) -> datetime | None:
    """A FHIR instant; None if the text is not one, or has no zone."""
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo is not None else None
    except (TypeError, ValueError, OverflowError):
        return None
