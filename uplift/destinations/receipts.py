"""What a destination calls a resource that it stored. Pure."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import httpx

# [base]/[type]/[id]/_history/[vid], https://hl7.org/fhir/http.html#create
_LOCATION = re.compile(r"(?:^|/)([A-Za-z]+)/([^/?#]+)(?:/_history/([^/?#]+))?/?$")

# What can stand in an `If-Match`. Of a version that cannot, no request could be made.
_VERSION = re.compile(r"[!#-~]{1,256}")


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
    named = receipt_in(headers, stored["resourceType"])
    version, resource_id = meta.get("versionId"), stored.get("id")
    return Receipt(
        resource_id if isinstance(resource_id, str) and resource_id else named.id,
        version if isinstance(version, str) and _VERSION.fullmatch(version) else named.version,
        _instant(meta.get("lastUpdated")),
    )


def receipt_in(headers: httpx.Headers, resource_type: str) -> Receipt:
    """What the headers alone call it: `Location`, `Content-Location`, `ETag`.

    HAPI answers a PUT without `Location`.
    """
    located = next(
        (
            found
            for name in ("location", "content-location")
            if (found := _LOCATION.search(headers.get(name, ""))) and found[1] == resource_type
        ),
        None,
    )
    tag = headers.get("etag", "").removeprefix("W/").strip('"')
    tag = tag if _VERSION.fullmatch(tag) else ""
    if located is None:
        return Receipt(None, tag or None)
    return Receipt(unquote(located[2]), tag or located[3])


def place_in(headers: httpx.Headers) -> tuple[str, str] | None:
    """The type and the id that a `Location` names; None if it names none."""
    located = _LOCATION.search(headers.get("location", ""))
    return (located[1], unquote(located[2])) if located else None


def _instant(text: Any) -> datetime | None:
    """A FHIR instant; None if the text is not one, or has no zone."""
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo is not None else None
    except (TypeError, ValueError, OverflowError):
        return None
