"""Sorts what 1upHealth answered. The only place that does. Pure.

Every response or failure becomes one `Answer` of a closed set of outcomes. Nothing of a body is
kept but ids and what a look-up compares: upstream texts may hold health data.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

import aiohttp
import httpx
import msgspec
import orjson

from uplift.identity import same_content

# A server that asks for more than this is wrong about its own clock.
_MAX_RETRY_AFTER = 24 * 3600.0
# [base]/[type]/[id]/_history/[vid], https://hl7.org/fhir/http.html#create
_LOCATION = re.compile(r"(?:^|/)([A-Za-z]+)/([^/?#]+)(?:/_history/([^/?#]+))?/?$")


class ResponseKind(StrEnum):
    """What one request came to."""

    STORED = "stored"
    UNKNOWN = "unknown"  # it may be stored: look before sending again
    NOT_SENT = "not_sent"  # proven: nothing reached 1upHealth
    BUSY = "busy"  # not stored: slow down
    REFUSED = "refused"  # this record will never be taken as it is
    UNAUTHORIZED = "unauthorized"
    HOLD = "hold"  # says more about the deployment than about the record
    FOUND = "found"  # a look-up found a resource
    ABSENT = "absent"  # a look-up, a search or an update found none


@dataclass(frozen=True, slots=True)
class Receipt:
    """What 1upHealth calls the stored resource."""

    id: str | None
    version: str | None
    stored_at: datetime | None = None  # by 1upHealth's clock


@dataclass(frozen=True, slots=True)
class Response:
    """One request's outcome. `code` is for history and clients: never free text."""

    kind: ResponseKind
    code: str
    status_code: int | None = None
    retry_after: float | None = None  # seconds
    receipt: Receipt | None = None
    resource: dict[str, Any] | None = None
    content: bytes = b""  # what was read, as it came
    issues: tuple[str, ...] = ()  # FHIR's issue types, if it said any
    next_page: str | None = None  # where a search that found nothing so far goes on

    def __repr__(self) -> str:
        return f"Answer({self.kind}, {self.code})"


# https://hl7.org/fhir/R4/valueset-issue-type.html; the earlier versions have some of them.
_ISSUE_TYPES = frozenset(
    {
        "invalid", "structure", "required", "value", "invariant",
        "security", "login", "unknown", "expired", "forbidden", "suppressed",
        "processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted",
        "too-long", "code-invalid", "extension", "too-costly", "business-rule", "conflict",
        "transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled",
        "informational",
    }
)  # fmt: skip

_NOT_STORED = {425: "too early, RFC 8470", 429: "too many requests, RFC 6585"}
_REFUSED = {
    400: "bad request: R4 bodies are validated",
    409: "conflict",
    410: "gone",
    412: "precondition failed",
    413: "too large",
    415: "media type",
    422: "unprocessable: FHIR's own code for a broken rule",
}


def classify_write(
    status: int, headers: httpx.Headers, body: bytes, resource_type: str, *, update: bool = False
) -> Response:
    """Sort the response to a create, or to an update of a known resource."""
    code = f"http_{status}"
    if 200 <= status < 300:
        return _classify_success(status, headers, body, resource_type)
    if status in _NOT_STORED:
        return Response(ResponseKind.BUSY, code, status, retry_after(headers))
    if status == 401:
        return Response(ResponseKind.UNAUTHORIZED, code, status)
    if status in _REFUSED:
        return Response(ResponseKind.REFUSED, code, status)
    if status == 408 or status >= 500:
        # Gateways answer 5xx after a commit too.
        return Response(ResponseKind.UNKNOWN, code, status, retry_after(headers))
    if status == 404 and update:
        return Response(ResponseKind.ABSENT, code, status)
    # 403, 3xx, 404 and 405 on create, and whatever nobody foresaw: a wrong address or a lapsed
    # contract answers so for every record, so it must not refuse a backlog.
    return Response(ResponseKind.HOLD, code, status, retry_after(headers))


def _classify_success(
    status: int, headers: httpx.Headers, body: bytes, resource_type: str
) -> Response:
    stored = _fhir_object(headers, body)
    if stored is None or stored.get("resourceType") != resource_type:
        # A login page, {"error": …} or another type under a 2xx: seen at 1upHealth.
        return Response(ResponseKind.UNKNOWN, "not_the_resource", status)
    return Response(
        ResponseKind.STORED, f"http_{status}", status, receipt=_receipt(headers, stored)
    )


def classify_look_up(
    status: int, headers: httpx.Headers, body: bytes, resource_type: str
) -> Response:
    """Sort the response to a read by id."""
    code = f"http_{status}"
    if status == 200:
        stored = _fhir_object(headers, body)
        if stored is not None and stored.get("resourceType") == resource_type:
            receipt = _receipt(headers, stored)
            return Response(ResponseKind.FOUND, code, status, receipt=receipt, resource=stored)
        return Response(ResponseKind.UNKNOWN, "not_the_resource", status)
    if status in (404, 410) and _fhir_object(headers, body) is not None:
        # Only in 1upHealth's own words: a gateway's page says 404 of everything while it is lost.
        return Response(ResponseKind.ABSENT, code, status)
    if status == 401:
        return Response(ResponseKind.UNAUTHORIZED, code, status)
    return Response(ResponseKind.UNKNOWN, code, status, retry_after(headers))


def classify_search(
    status: int, headers: httpx.Headers, body: bytes, resource_type: str, ours: dict[str, Any]
) -> Response:
    """Sort one page of a search: FOUND with the first resource whose content is `ours`.

    ABSENT if the page has none, which says nothing yet while there is a next page.
    """
    code = f"http_{status}"
    if status == 401:
        return Response(ResponseKind.UNAUTHORIZED, code, status)
    if status != 200:
        return Response(ResponseKind.UNKNOWN, code, status, retry_after(headers))
    page = _fhir_object(headers, body)
    if page is None or page.get("resourceType") != "Bundle" or page.get("type") != "searchset":
        return Response(ResponseKind.UNKNOWN, "not_a_search", status)
    entries, links = page.get("entry", []), page.get("link", [])
    if not _are_objects(entries) or not _are_objects(links):
        return Response(ResponseKind.UNKNOWN, "not_a_search", status)
    for resource in (entry.get("resource") for entry in entries):
        if not isinstance(resource, dict) or _says_it_failed(resource):
            return Response(ResponseKind.UNKNOWN, "search_incomplete", status)
        if resource.get("resourceType") == resource_type and same_content(ours, resource):
            # The headers are the page's: neither its ETag nor its Location is the resource's.
            receipt = _receipt(httpx.Headers(), resource)
            return Response(ResponseKind.FOUND, code, status, receipt=receipt, resource=resource)
    following = [link.get("url") for link in links if link.get("relation") == "next"]
    if not following:
        return Response(ResponseKind.ABSENT, code, status)
    if not isinstance(following[0], str):
        return Response(ResponseKind.UNKNOWN, "not_a_search", status)
    return Response(ResponseKind.ABSENT, code, status, next_page=following[0])


def classify_read(status: int, headers: httpx.Headers, body: bytes, resource_type: str) -> Response:
    """Sort the response to a read that somebody else asked for, whose bytes they get."""
    code = f"http_{status}"
    if status == 200:
        if "json" in headers.get("content-type", "").lower() and _is_of(body, resource_type):
            return Response(ResponseKind.FOUND, code, status, content=body)
        return Response(ResponseKind.UNKNOWN, "not_the_resource", status)
    if status in (404, 410):
        return Response(ResponseKind.ABSENT, code, status)
    if status == 401:
        return Response(ResponseKind.UNAUTHORIZED, code, status)
    if status in _NOT_STORED:
        return Response(ResponseKind.BUSY, code, status, retry_after(headers))
    if status in _REFUSED or status in (405, 406, 414, 431):
        return Response(ResponseKind.REFUSED, code, status, issues=_issue_types(headers, body))
    if status == 408 or status >= 500:
        return Response(ResponseKind.UNKNOWN, code, status, retry_after(headers))
    return Response(ResponseKind.HOLD, code, status, retry_after(headers))


def classify_error(error: Exception) -> Response:
    """Sort a request that got no response.

    Only a connection that was never made proves that nothing was sent: behind httpx-aiohttp a
    connection cut *after* sending is an `httpx.ConnectTimeout` too, so the cause decides.
    """
    if isinstance(error.__cause__, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Response(ResponseKind.NOT_SENT, "no_connection")
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return Response(ResponseKind.UNKNOWN, "no_answer")
    return Response(ResponseKind.UNKNOWN, "connection_lost")


def retry_after(headers: httpx.Headers, *, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After asks for: RFC 9110, 10.2.3 allows a number or a date."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _MAX_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the parser overflows on fields of many digits
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    seconds = (at - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)


def _fhir_object(headers: httpx.Headers, body: bytes) -> dict[str, Any] | None:
    if "json" not in headers.get("content-type", "").lower():
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


class _Typed(msgspec.Struct):
    resourceType: str  # noqa: N815  FHIR's name


def _is_of(body: bytes, resource_type: str) -> bool:
    """Whether that is a resource of the type: JSON in UTF-8. Skips the rest instead of building it:
    a page may have megabytes."""
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into the texts that it skips
        return msgspec.json.decode(body, type=_Typed).resourceType == resource_type
    except (ValueError, RecursionError):
        return False


def _issue_types(headers: httpx.Headers, body: bytes) -> tuple[str, ...]:
    """What an OperationOutcome says in FHIR's own codes. Its texts may hold health data."""
    issues = (_fhir_object(headers, body) or {}).get("issue")
    codes = [
        issue.get("code")
        for issue in (issues if isinstance(issues, list) else [])
        if isinstance(issue, dict)
    ]
    told = (code for code in codes if isinstance(code, str) and code in _ISSUE_TYPES)
    return tuple(dict.fromkeys(told))


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _says_it_failed(resource: dict[str, Any]) -> bool:
    """Whether an entry of a search is an OperationOutcome of something worse than a warning.

    A search may tell so what it left out: https://hl7.org/fhir/R4/search.html#errors
    """
    if resource.get("resourceType") != "OperationOutcome":
        return False
    issues = resource.get("issue")
    return not _are_objects(issues) or any(
        issue.get("severity") not in ("warning", "information", "success") for issue in issues or ()
    )


def _receipt(headers: httpx.Headers, stored: dict[str, Any]) -> Receipt:
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
    """A FHIR instant; None for what is none, or has no zone."""
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo is not None else None
    except (TypeError, ValueError, OverflowError):
        return None
