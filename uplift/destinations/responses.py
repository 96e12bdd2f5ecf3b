"""Classifies what a destination responds. The only place that does. Pure.

Every HTTP response and every failure becomes one `Response` with one `ResponseKind`. Of a body
only ids are kept, and the resource that a look-up compares: texts may contain health data.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import aiohttp
import httpx
import msgspec
import orjson

from uplift.destinations.destination import Destination, Meaning
from uplift.destinations.receipts import Receipt, receipt_in, receipt_of
from uplift.destinations.requests import Create, Put, Update, Upsert, Write
from uplift.destinations.same_content import same_content
from uplift.fhir.versions import FhirVersion

# A server that asks for a longer wait has a wrong clock.
_MAX_RETRY_AFTER = 24 * 3600.0
_RATE_LIMIT = re.compile(r";\s*r=(\d{1,9})\s*;\s*t=(\d{1,9})", re.ASCII)
_MAX_RATE_LIMIT = 1024  # characters of the field


class ResponseKind(StrEnum):
    """What one request came to."""

    STORED = "stored"
    UNKNOWN = "unknown"  # it may be stored: look it up before sending it again
    NOT_SENT = "not_sent"  # proven: nothing reached the destination
    BUSY = "busy"  # not stored: slow down
    LOCKED = "locked"  # not stored: another request was at the same resource
    CONFLICT = "conflict"  # not stored: another version is there, or LOCKED: a read tells
    REFUSED = "refused"  # this record will never be accepted as it is
    # Not stored: one record of its Bundle, and nobody knows which, is not accepted as it is.
    BUNDLE_REFUSED = "bundle_refused"
    UNAUTHORIZED = "unauthorized"
    HOLD = "hold"  # the deployment is at fault rather than the record
    FOUND = "found"  # a look-up found a resource
    ABSENT = "absent"  # a look-up, a search, an update or a deletion found no resource
    DELETED = "deleted"  # it is gone, as the destination says


@dataclass(frozen=True, slots=True)
class Response:
    """What one request came to. `code` is for history and clients: never free text."""

    kind: ResponseKind
    code: str
    status_code: int | None = None
    retry_after: float | None = None  # seconds
    receipt: Receipt | None = None
    resource: dict[str, Any] | None = None
    content: bytes = b""  # the bytes of a read, as they came
    issues: tuple[str, ...] = ()  # FHIR's issue types, if the response has any
    refusal: tuple[dict[str, Any], ...] = ()  # why a record was refused: see `refusals`
    next_page: str | None = None  # the next page of a search that has found nothing so far
    differs: bool = False  # stored, with other content than ours and what servers add

    def __repr__(self) -> str:
        return f"Response({self.kind}, {self.code})"

    @property
    def is_about_type(self) -> bool:
        """Whether it is a failure that speaks of one FHIR version or type, not of the destination.

        No connection, a time-out and a 5xx speak of the whole; so does a 401 after a refresh. A 404
        or 405 speaks of what was asked for. So does whatever else comes as a clear answer: if it is
        the whole that answers so, each type finds that out for itself.
        """
        status = self.status_code
        if self.kind is ResponseKind.HOLD:
            return True
        return self.kind is ResponseKind.UNKNOWN and status in _ABOUT_TYPE


# https://hl7.org/fhir/R4/valueset-issue-type.html; the earlier versions have some of them.
ISSUE_TYPES = frozenset(
    {
        "invalid", "structure", "required", "value", "invariant",
        "security", "login", "unknown", "expired", "forbidden", "suppressed",
        "processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted",
        "too-long", "code-invalid", "extension", "too-costly", "business-rule", "conflict",
        "transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled",
        "informational",
    }
)  # fmt: skip

# Where they leave the outcome unknown: of a look-up, and 501 of a write.
_ABOUT_TYPE = {
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    501: "not implemented",
}
_NOT_STORED = {425: "too early, RFC 8470", 429: "too many requests, RFC 6585"}
_CONFLICTS = {409: "conflict", 412: "precondition failed"}  # what they mean, a preset says
_NOT_THERE = {404: "not found", 410: "gone"}
_REFUSED = {
    400: "bad request: R4 bodies are validated",
    410: "gone",
    413: "too large",
    415: "media type",
    422: "unprocessable: FHIR's own code for a broken rule",
}


# Codes of a success that is not about the resource that was sent: whether that one is stored is
# unknown, and something mixes up what it answers.
NOT_THE_RESOURCE = "not_the_resource"
ANOTHER_ID = "another_id"
ANOTHER_RECORD = "another_record"
WRONG_RESOURCES = (NOT_THE_RESOURCE, ANOTHER_ID, ANOTHER_RECORD)

SEVERAL_MATCH = "several_match"
"""The code of a search for the one resource of a record that found several."""


def classify_write(
    status: int,
    headers: httpx.Headers,
    body: bytes,
    resource_type: str,
    *,
    destination: Destination,
    write: Write,
    sent: bytes,
    keeps_ids: bool = False,
) -> Response:
    """Classify the response to a write at the destination.

    `sent` is the body of the request. `keeps_ids` is whether the destination is known to keep the
    ids that resources are created with.
    """
    answer = Received(status, headers, fhir_object(headers, body), is_empty=not body)
    if 200 <= status < 300:
        return classify_success(answer, resource_type, write, sent, keeps_ids=keeps_ids)
    return classify_failure(answer, destination=destination, write=write)


@dataclass(frozen=True, slots=True)
class Received:
    """What came for one write: by a response of its own, or by an entry of a Bundle.

    `resource` is the JSON object that came with it; None if none did. `is_empty`: nothing came.
    """

    status: int
    headers: httpx.Headers
    resource: dict[str, Any] | None
    is_empty: bool = False


def classify_failure(answer: Received, *, destination: Destination, write: Write) -> Response:
    """Classify the response to a write that has no 2xx."""
    status, headers = answer.status, answer.headers
    code = f"http_{status}"
    if status in _NOT_STORED:
        return Response(ResponseKind.BUSY, code, status, retry_after(headers))
    if status == 401:
        return Response(ResponseKind.UNAUTHORIZED, code, status)
    if status in _CONFLICTS:
        kind = _classify_conflict(status, destination, write)
        return Response(kind, code, status, retry_after(headers))
    if status in _NOT_THERE and _is_said_to_precondition(answer, write):
        return Response(ResponseKind.CONFLICT, code, status)
    if status in _REFUSED:
        return Response(ResponseKind.REFUSED, code, status)
    if status == 408 or status >= 500:
        # A gateway may send a 5xx although the resource was stored.
        return Response(ResponseKind.UNKNOWN, code, status, retry_after(headers))
    if status == 404 and isinstance(write, Update):
        return Response(ResponseKind.ABSENT, code, status)
    # 403, 3xx, 404 and 405 on what creates, and all other statuses. A wrong address or an ended
    # contract has the same response for every record, so it must not refuse a whole backlog.
    return Response(ResponseKind.HOLD, code, status, retry_after(headers))


def _classify_conflict(status: int, destination: Destination, write: Write) -> ResponseKind:
    """What a 409 or a 412 means there. To a precondition both may say no: HAPI says 409."""
    if isinstance(write, Put | Upsert) and write.if_match:
        return ResponseKind.CONFLICT
    match destination.on_conflict if status == 409 else destination.on_precondition:
        case Meaning.LOOK:
            return ResponseKind.CONFLICT
        case Meaning.RETRY:
            return ResponseKind.LOCKED
        case Meaning.REFUSED:
            return ResponseKind.REFUSED


def _is_said_to_precondition(answer: Received, write: Write) -> bool:
    """Whether a server itself says, in FHIR, that the version to update is not there.

    Azure's is a 404 where the resource is gone without a trace.
    """
    conditional = isinstance(write, Put | Upsert) and bool(write.if_match)
    return conditional and answer.resource is not None


def classify_success(
    answer: Received, resource_type: str, write: Write, sent: bytes, *, keeps_ids: bool = False
) -> Response:
    """Classify the 2xx to a write of these bytes."""
    status, headers, stored = answer.status, answer.headers, answer.resource
    ours = _object(sent) or {}
    own_id = ours.get("id")
    match write:
        case Update(resource_id) | Put(resource_id):
            known_id: str | None = resource_id
        case _:
            known_id = own_id if keeps_ids and isinstance(own_id, str) else None
    if stored is not None and stored.get("resourceType") == resource_type:
        receipt, differs = receipt_of(headers, stored), not same_content(ours, stored)
    elif _may_be_named_by_headers(write, answer):
        receipt, differs = receipt_in(headers, resource_type), False
    else:
        receipt, differs = Receipt(None, None), False
        stored = None
    if stored is None and not (receipt.id or (isinstance(write, Put) and receipt.version)):
        # A login page, {"error": …} or another type with a 2xx: seen at 1upHealth.
        return Response(ResponseKind.UNKNOWN, NOT_THE_RESOURCE, status)
    receipt = replace(
        receipt,
        id=receipt.id or known_id,
        assigned=isinstance(write, Create)
        and known_id is None
        and receipt.id not in (None, ours.get("id")),
    )
    if known_id is not None and receipt.id != known_id:
        return Response(ResponseKind.UNKNOWN, ANOTHER_ID, status, receipt=receipt)
    return Response(ResponseKind.STORED, f"http_{status}", status, receipt=receipt, differs=differs)


def _may_be_named_by_headers(write: Write, answer: Received) -> bool:
    """Whether a 2xx without the resource may still be one of a server that stored it.

    `Prefer: return=minimal` has no body, `return=OperationOutcome` has one that says that all is
    well: https://hl7.org/fhir/R4/http.html#ops
    """
    if isinstance(write, Create | Update):
        # Sent again, it might be stored twice: only an empty answer to a create says enough.
        return answer.is_empty and isinstance(write, Create)
    if answer.is_empty:
        return True
    stored = answer.resource
    return (
        stored is not None
        and stored.get("resourceType") == "OperationOutcome"
        and not _says_it_failed(stored)
    )


def of_another_record(response: Response) -> Response:
    """The response to a create, where its id turns out to be another record's receipt."""
    return Response(ResponseKind.UNKNOWN, ANOTHER_RECORD, response.status_code)


def of_assigned_id(response: Response, found: Response, sent: bytes) -> Response:
    """The response to a create with another id than ours, once that id was looked up.

    STORED if our content is there: then ids are not kept, whatever the setting says. The code
    stays.
    """
    if found.kind is not ResponseKind.FOUND or found.receipt is None:
        return response
    if not same_content(_object(sent), found.resource):
        return response
    receipt = replace(found.receipt, assigned=True)
    return replace(response, kind=ResponseKind.STORED, receipt=receipt)


def classify_delete(status: int, headers: httpx.Headers) -> Response:
    """Classify the response to a deletion: DELETED, or ABSENT if there is nothing to delete.

    A server that keeps references whole answers CONFLICT while something refers to the resource:
    https://hl7.org/fhir/R4/http.html#delete. REFUSED says that the deployment may not delete.
    Neither says anything about what is written there.
    """
    code = f"http_{status}"
    if 200 <= status < 300:
        return Response(ResponseKind.DELETED, code, status)
    if status in (404, 410):
        return Response(ResponseKind.ABSENT, code, status)
    if status == 401:
        return Response(ResponseKind.UNAUTHORIZED, code, status)
    if status in _CONFLICTS:
        return Response(ResponseKind.CONFLICT, code, status, retry_after(headers))
    if status in _NOT_STORED:
        return Response(ResponseKind.BUSY, code, status, retry_after(headers))
    if status == 408 or (status >= 500 and status not in _ABOUT_TYPE):
        return Response(ResponseKind.UNKNOWN, code, status, retry_after(headers))
    return Response(ResponseKind.REFUSED, code, status, retry_after(headers))


def classify_look_up(
    status: int, headers: httpx.Headers, body: bytes, resource_type: str
) -> Response:
    """Classify the response to a read by id."""
    code = f"http_{status}"
    if status == 200:
        stored = fhir_object(headers, body)
        if stored is not None and stored.get("resourceType") == resource_type:
            receipt = receipt_of(headers, stored)
            return Response(ResponseKind.FOUND, code, status, receipt=receipt, resource=stored)
        return Response(ResponseKind.UNKNOWN, NOT_THE_RESOURCE, status)
    if status in (404, 410) and fhir_object(headers, body) is not None:
        # Only if the destination itself says so, in FHIR: a misled gateway sends a 404 page for
        # everything.
        return Response(ResponseKind.ABSENT, code, status)
    if status == 401:
        return Response(ResponseKind.UNAUTHORIZED, code, status)
    return Response(ResponseKind.UNKNOWN, code, status, retry_after(headers))


def classify_match(
    status: int, headers: httpx.Headers, body: bytes, resource_type: str
) -> Response:
    """Classify a search that one resource at most should match.

    Of several, UNKNOWN: nobody can tell which one is ours.
    """
    page = classify_search(status, headers, body, resource_type, None)
    if page.kind is not ResponseKind.ABSENT or page.next_page is not None:
        return page
    entries = (_object(body) or {}).get("entry", [])
    found = [
        each
        for entry in entries
        if (each := entry["resource"]).get("resourceType") == resource_type
    ]
    match found:
        case []:
            return page
        case [stored]:
            receipt = receipt_of(httpx.Headers(), stored)
            return replace(page, kind=ResponseKind.FOUND, receipt=receipt, resource=stored)
    return Response(ResponseKind.UNKNOWN, SEVERAL_MATCH, status)


def classify_search(
    status: int,
    headers: httpx.Headers,
    body: bytes,
    resource_type: str,
    ours: dict[str, Any] | None,
    *,
    exactly: bool = False,
) -> Response:
    """Classify one page of a search: FOUND with the first resource whose content is `ours`.

    `exactly` as in `same_content`. ABSENT if the page has none. With a `next_page` that proves
    nothing yet.
    """
    code = f"http_{status}"
    if status == 401:
        return Response(ResponseKind.UNAUTHORIZED, code, status)
    if status != 200:
        return Response(ResponseKind.UNKNOWN, code, status, retry_after(headers))
    page = fhir_object(headers, body)
    if page is None or page.get("resourceType") != "Bundle" or page.get("type") != "searchset":
        return Response(ResponseKind.UNKNOWN, "not_a_search", status)
    entries, links = page.get("entry", []), page.get("link", [])
    if not _are_objects(entries) or not _are_objects(links):
        return Response(ResponseKind.UNKNOWN, "not_a_search", status)
    for resource in (entry.get("resource") for entry in entries):
        if not isinstance(resource, dict) or _says_it_failed(resource):
            return Response(ResponseKind.UNKNOWN, "search_incomplete", status)
        if resource.get("resourceType") == resource_type and same_content(
            ours, resource, exactly=exactly
        ):
            # No headers: the ETag and the Location belong to the page, not to the resource.
            receipt = receipt_of(httpx.Headers(), resource)
            return Response(ResponseKind.FOUND, code, status, receipt=receipt, resource=resource)
    following = [link.get("url") for link in links if link.get("relation") == "next"]
    if not following:
        return Response(ResponseKind.ABSENT, code, status)
    if not isinstance(following[0], str):
        return Response(ResponseKind.UNKNOWN, "not_a_search", status)
    return Response(ResponseKind.ABSENT, code, status, next_page=following[0])


def classify_metadata(
    status: int, headers: httpx.Headers, body: bytes, version: FhirVersion
) -> Response:
    """Classify the response to a read of `/metadata`: FOUND if the server is of that version, with
    what it says of itself.

    HAPI takes DSTU2 at a base of R4 and drops what it does not know, the person among it. So
    nothing is sent where the version is another one, or is not declared.
    """
    code = f"http_{status}"
    if status == 200:
        statement = fhir_object(headers, body) or {}
        declared = statement.get("fhirVersion")
        if not isinstance(declared, str):
            return Response(ResponseKind.HOLD, "no_fhir_version", status)
        if FhirVersion.parse(declared) is not version:
            return Response(ResponseKind.HOLD, "wrong_fhir_version", status)
        return Response(ResponseKind.FOUND, code, status, resource=statement)
    if status == 401:
        return Response(ResponseKind.UNAUTHORIZED, code, status)
    if status in _NOT_STORED:
        return Response(ResponseKind.BUSY, code, status, retry_after(headers))
    if status == 408 or status >= 500:
        return Response(ResponseKind.UNKNOWN, code, status, retry_after(headers))
    return Response(ResponseKind.HOLD, "no_fhir_version", status)


def classify_read(status: int, headers: httpx.Headers, body: bytes, resource_type: str) -> Response:
    """Classify the response to a read for a caller, who gets its bytes."""
    code = f"http_{status}"
    if status == 200:
        if "json" in headers.get("content-type", "").lower() and _is_of(body, resource_type):
            return Response(ResponseKind.FOUND, code, status, content=body)
        return Response(ResponseKind.UNKNOWN, NOT_THE_RESOURCE, status)
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
    """Classify a request that got no response.

    Only a connection that was never made proves that nothing was sent.
    """
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Response(ResponseKind.NOT_SENT, "no_connection")
    if isinstance(error, TimeoutError):
        return Response(ResponseKind.UNKNOWN, "no_answer")
    return Response(ResponseKind.UNKNOWN, "connection_lost")


def retry_after(headers: httpx.Headers, *, now: datetime | None = None) -> float | None:
    """The seconds of a Retry-After. RFC 9110, 10.2.3 allows a number or a date.

    Without one, those until a limit is full again of which nothing is left: Medplum says only this.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return _until_more_is_left(headers.get("ratelimit", ""))
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


def _until_more_is_left(text: str) -> float | None:
    """The seconds of a RateLimit field: `"name";r=0;t=30, "other";r=49894;t=60`.

    https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-10.html#section-4.1
    """
    waits = [
        float(found[2]) for found in _RATE_LIMIT.finditer(text[:_MAX_RATE_LIMIT]) if found[1] == "0"
    ]
    return min(max(waits), _MAX_RETRY_AFTER) if waits else None


def fhir_object(headers: httpx.Headers, body: bytes) -> dict[str, Any] | None:
    """The JSON object of a response; None if it is something else."""
    if "json" not in headers.get("content-type", "").lower():
        return None
    return _object(body)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


class _Typed(msgspec.Struct):
    resourceType: str  # noqa: N815  FHIR's name


def _is_of(body: bytes, resource_type: str) -> bool:
    """Whether the body is a resource of that type: JSON in UTF-8.

    Builds no objects from the rest: a page may have megabytes.
    """
    try:
        if not body.isascii():
            body.decode()  # msgspec does not check the texts that it skips
        return msgspec.json.decode(body, type=_Typed).resourceType == resource_type
    except (ValueError, RecursionError):
        return False


def _issue_types(headers: httpx.Headers, body: bytes) -> tuple[str, ...]:
    """The issue types of an OperationOutcome. Its texts may contain health data."""
    issues = (fhir_object(headers, body) or {}).get("issue")
    codes = [
        issue.get("code")
        for issue in (issues if isinstance(issues, list) else [])
        if isinstance(issue, dict)
    ]
    told = (code for code in codes if isinstance(code, str) and code in ISSUE_TYPES)
    return tuple(dict.fromkeys(told))


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _says_it_failed(resource: dict[str, Any]) -> bool:
    """Whether an entry of a search is an OperationOutcome with an error.

    A search may say in one that it is incomplete: https://hl7.org/fhir/R4/search.html#errors
    """
    if resource.get("resourceType") != "OperationOutcome":
        return False
    issues = resource.get("issue")
    return not _are_objects(issues) or any(
        issue.get("severity") not in ("warning", "information", "success") for issue in issues or ()
    )
