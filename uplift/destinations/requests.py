"""The requests that write and read at a destination: method, address and headers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

import orjson

from uplift.destinations.destination import BundleType, Destination, Mode
from uplift.fhir.versions import FhirVersion

RECORD_SYSTEM = "urn:uplift:record"
"""The identifier system of derived ids, where the server chooses its own."""
USER_SYSTEM = "urn:uplift:user"
"""The identifier system of persons' pseudonyms."""


@dataclass(frozen=True, slots=True)
class Create:
    """POST to the type: the server may choose the id."""


@dataclass(frozen=True, slots=True)
class Update:
    """POST to the resource, as 1upHealth documents it."""

    resource_id: str


@dataclass(frozen=True, slots=True)
class Put:
    """PUT to the resource, which is created if it is not there.

    `if_match` is the version that must be there.
    """

    resource_id: str
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class Upsert:
    """PUT to a search, of which the resource must be the only match.

    `parameter` is the search parameter that finds `value` in `system`. `if_match` as in `Put`.
    """

    value: str
    parameter: str = "identifier"
    system: str = RECORD_SYSTEM
    if_match: str | None = None

    @property
    def query(self) -> str:
        """The search."""
        token = f"{self.system}|{self.value}"
        return urlencode({self.parameter: token}, quote_via=quote, safe="")


Write = Create | Update | Put | Upsert


@dataclass(frozen=True, slots=True)
class Entry:
    """A write as a part of a Bundle, with the resource's bytes."""

    resource_type: str
    write: Put | Upsert
    body: bytes = field(repr=False)

    @property
    def url(self) -> str:
        """Its address below the base."""
        match self.write:
            case Put(resource_id):
                return f"{self.resource_type}/{quote(resource_id, safe='')}"
            case Upsert():
                return f"{self.resource_type}?{self.write.query}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request but for its body."""

    method: str
    url: str
    headers: dict[str, str]


def prepare_write(
    destination: Destination,
    write: Write,
    *,
    version: FhirVersion,
    resource_type: str,
    authorization: str,
    body_bytes: int,
) -> Prepared | None:
    """The request of a write; None if no URL can address it."""
    base = type_url(destination, version, resource_type)
    if base is None:
        return None
    headers = _headers(destination, version, authorization) | {
        "Content-Type": destination.media_type_of(version),
        "Content-Length": str(body_bytes),
    }
    if destination.mode is not Mode.ONEUP:
        headers["Prefer"] = "return=representation"
    match write:
        case Create():
            return Prepared("POST", base, headers)
        case Update(resource_id):
            url = resource_url(base, resource_id)
            return Prepared("POST", url, headers) if url else None
        case Put(resource_id, if_match):
            url = resource_url(base, resource_id)
            return Prepared("PUT", url, headers | _precondition(if_match)) if url else None
        case Upsert():
            url = f"{base}?{write.query}"
            return Prepared("PUT", url, headers | _precondition(write.if_match))


def prepare_bundle(
    destination: Destination,
    *,
    version: FhirVersion,
    authorization: str,
    body_bytes: int,
) -> Prepared | None:
    """The request of a Bundle: POST to the base. None if the version is not taken.

    https://hl7.org/fhir/R4/http.html#transaction
    """
    base = destination.base(version)
    if base is None:
        return None
    return Prepared(
        "POST",
        base,
        _headers(destination, version, authorization)
        | {
            "Content-Type": destination.media_type_of(version),
            "Content-Length": str(body_bytes),
            "Prefer": "return=representation",
        },
    )


def bundle_body(kind: BundleType, entries: Sequence[Entry]) -> bytes:
    """The Bundle of these entries, in their order. The resources' bytes stay as they are."""
    parts = (
        b'{"resource":%b,"request":%b}' % (entry.body, orjson.dumps(_request_of(entry)))
        for entry in entries
    )
    head = b'{"resourceType":"Bundle","type":"%b","entry":[' % kind.value.encode()
    return head + b",".join(parts) + b"]}"


def _request_of(entry: Entry) -> dict[str, str]:
    request = {"method": "PUT", "url": entry.url}
    if entry.write.if_match:
        request["ifMatch"] = f'W/"{entry.write.if_match}"'
    return request


def prepare_read(
    destination: Destination,
    *,
    version: FhirVersion,
    address: str,
    authorization: str,
) -> Prepared | None:
    """The request of a read at an address below the version's base; None if it has none."""
    base = destination.base(version)
    if base is None:
        return None
    headers = _headers(destination, version, authorization)
    if destination.mode is not Mode.ONEUP:
        headers["Cache-Control"] = "no-cache"  # HAPI keeps an empty search for a minute
    # Without a path it is a page that the server keeps, and links to at the base itself.
    url = f"{base}{address}" if address.startswith("?") else f"{base}/{address}"
    return Prepared("GET", url, headers)


def prepare_delete(
    destination: Destination,
    *,
    version: FhirVersion,
    resource_type: str,
    resource_id: str,
    authorization: str,
) -> Prepared | None:
    """The request of a deletion; None if no URL can address it."""
    base = type_url(destination, version, resource_type)
    url = resource_url(base, resource_id) if base else None
    return Prepared("DELETE", url, _headers(destination, version, authorization)) if url else None


def type_url(destination: Destination, version: FhirVersion, resource_type: str) -> str | None:
    """The address of a type; None if the destination does not take the version."""
    base = destination.base(version)
    return f"{base}/{resource_type}" if base else None


def resource_url(type_address: str, resource_id: str) -> str | None:
    """The address of one resource; None if no URL can address that id."""
    # FHIR allows these two as ids, but in a path they mean another resource, even encoded:
    # https://www.rfc-editor.org/rfc/rfc3986#section-5.2.4
    if resource_id in {"", ".", ".."}:
        return None
    # safe="": an id is one path segment, whatever characters a hospital uses in it.
    return f"{type_address}/{quote(resource_id, safe='')}"


def fits_a_header(authorization: str) -> bool:
    """Whether it can be sent: RFC 6749, A.12. A token from an app's own server may be anything."""
    return authorization.isascii() and authorization.isprintable()


def _headers(destination: Destination, version: FhirVersion, authorization: str) -> dict[str, str]:
    headers = {**destination.headers, "Accept": destination.media_type_of(version)}
    if authorization:
        headers["Authorization"] = authorization
    return headers


def _precondition(version: str | None) -> dict[str, str]:
    return {"If-Match": f'W/"{version}"'} if version else {}
