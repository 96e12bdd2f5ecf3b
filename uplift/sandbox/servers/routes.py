"""The HTTP side: paths, headers, `Prefer`, media types."""

import gzip
import secrets
import zlib
from collections.abc import Callable
from email.utils import format_datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.responses import Response

from uplift.sandbox.exchange import Api, Exchange
from uplift.sandbox.responses import message
from uplift.sandbox.search import Query, everything
from uplift.sandbox.servers import login
from uplift.sandbox.servers.bundles import answer_bundle
from uplift.sandbox.servers.limits import check_limits, check_media_type
from uplift.sandbox.servers.metadata import statement
from uplift.sandbox.servers.outcomes import Refusal, refused, succeeded
from uplift.sandbox.servers.parsing import parse
from uplift.sandbox.servers.throttling import throttle_headers
from uplift.sandbox.servers.writes import (
    NOBODY,
    Plan,
    Write,
    Written,
    carry_out,
    plan,
    require_type,
    shelf_of,
)
from uplift.sandbox.state import Sandbox
from uplift.sandbox.store import StoredResource, StoredVersion

_Handler = Callable[[Sandbox, Exchange], Response]
_MEDIA_TYPE = "application/fhir+json"
_MEDIA_TYPES = {"dstu2": "application/json+fhir"}


def _fhir(handler: _Handler, *, public: bool = False) -> _Handler:
    """A handler behind the login, whose refusals become responses."""

    def handle(sandbox: Sandbox, exchange: Exchange) -> Response:
        profile = sandbox.profile
        if exchange.version not in profile.versions:
            return message(404, "Not Found")
        if exchange.account is None and not public:
            refusal = refused(Refusal(401, "Unauthorized"), profile)
            challenge = "Basic" if sandbox.config.login == "basic" else "Bearer"
            return _json(exchange, refusal, 401, {"WWW-Authenticate": challenge})
        try:
            answer = handler(sandbox, exchange)
        except Refusal as why:
            answer = _json(exchange, refused(why, profile), why.status)
        answer.headers.update(throttle_headers(profile, answer.status_code))
        return answer

    return handle


def _bases(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}`: POST takes a Bundle."""
    if exchange.method != "POST":
        raise Refusal(400, f"HAPI-0446: {exchange.method} of the base is not simulated")
    version = exchange.version or ""
    check_media_type(exchange.request.headers.get("content-type", ""), sandbox.profile)
    bundle = parse(_body(exchange), version, "Bundle")
    places: list[str] = []

    def carry_out_and_note(planned: Plan) -> Written:
        done = _carry_out(sandbox, exchange, planned)
        if planned.action != "nothing":
            places.append(done.path)
        return done

    answer = answer_bundle(
        sandbox.store,
        bundle,
        version,
        carry_out_and_note,
        sandbox.profile,
        representation=_preferred(exchange) == "representation",
    )
    exchange.stored = " ".join(places) or None
    location = f"{exchange.base}/Bundle/{secrets.token_hex(16)}"
    return _json(exchange, answer, 200, {"Location": location, "Content-Location": location})


def _types(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/{type}`: GET searches, POST creates, PUT updates what a query finds."""
    version, type_ = exchange.version or "", exchange.resource_type or ""
    query = exchange.request.url.query
    if_match = None
    match exchange.method:
        case "GET":
            return _search(sandbox, exchange, exchange.request.query_params.multi_items())
        case "POST":
            criteria = exchange.request.headers.get("if-none-exist")
        case "PUT" if query:
            criteria = query
            if sandbox.profile.searches_with_if_match:
                if_match = exchange.request.headers.get("if-match")
        case _:
            raise Refusal(400, f"HAPI-0445: {exchange.method} of {type_} is not simulated")
    asked = partial(Write, version=version, criteria=criteria, if_match=if_match)
    return _write(sandbox, exchange, asked)


def _instances(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/{type}/{id}`: GET reads, PUT writes, DELETE deletes."""
    id_ = str(exchange.request.path_params["id"])
    version, type_ = exchange.version or "", exchange.resource_type or ""
    match exchange.method:
        case "GET":
            return _read(sandbox, exchange)
        case "PUT":
            if_match = exchange.request.headers.get("if-match")
            return _write(
                sandbox, exchange, partial(Write, version=version, id=id_, if_match=if_match)
            )
        case "DELETE":
            write = Write("DELETE", version, type_, id_)
            done = _carry_out(sandbox, exchange, plan(sandbox.store, write, sandbox.profile))
            if done.plan.action == "delete":
                exchange.stored = done.path
            if done.plan.status == 204:
                return Response(status_code=204)
            outcome = succeeded(done.plan.code, f"Delete of {done.path}")
            where = {"Content-Location": f"{exchange.base}/{done.path}"}
            return _json(exchange, outcome, done.plan.status, where)
        case "POST":
            raise Refusal(
                400,
                f'HAPI-0365: Can not create resource with ID "{id_}", ID must not be supplied on a '
                "create (POST) operation (use an HTTP PUT / update operation if you wish to supply "
                "an ID)",
            )
    raise Refusal(400, f"HAPI-0445: {exchange.method} of {type_}/{id_} is not simulated")


def _versions(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/{type}/{id}/_history/{vid}`: GET reads one version."""
    return _read(sandbox, exchange)


def _searches(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/{type}/_search`: POST searches, with parameters in the form and the query."""
    form = parse_qsl(exchange.body.decode("utf-8", "replace"), keep_blank_values=True)
    return _search(sandbox, exchange, [*exchange.request.query_params.multi_items(), *form])


def _everything(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/Patient/{id}/$everything`: the Patient, and what is about them."""
    id_ = str(exchange.request.path_params["id"])
    version = exchange.version or ""
    patient = _found(sandbox, exchange)
    rest = (
        resource
        for (_, of_version, _), shelf in sandbox.store.shelves()
        if of_version == version
        for resource in shelf.resources.values()
        if id_ in resource.latest.patients and not resource.latest.deleted
    )
    url = f"{exchange.base}/Patient/{id_}/$everything"
    query = exchange.request.query_params.multi_items()
    return _json(exchange, everything([patient, *rest], query, url, exchange.base), 200)


def _metadata(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/metadata`, without credentials."""
    version = exchange.version or ""
    place = f"{exchange.base}/CapabilityStatement/{secrets.token_hex(16)}"
    headers = {} if version == "dstu2" else {"Content-Location": place}
    return _json(exchange, statement(version, exchange.base, sandbox.profile), 200, headers)


ROUTES: list[tuple[str, Api, _Handler]] = [
    ("/oauth2/token", "token", login.token),
    ("/{version}/.well-known/smart-configuration", "none", login.smart_configuration),
    ("/{version}", "fhir", _fhir(_bases)),
    ("/{version}/", "fhir", _fhir(_bases)),
    ("/{version}/metadata", "fhir", _fhir(_metadata, public=True)),
    ("/{version}/{type}", "fhir", _fhir(_types)),
    ("/{version}/{type}/_search", "fhir", _fhir(_searches)),
    ("/{version}/{type}/{id}", "fhir", _fhir(_instances)),
    ("/{version}/{type}/{id}/$everything", "fhir", _fhir(_everything)),
    ("/{version}/{type}/{id}/_history/{vid}", "fhir", _fhir(_versions)),
]
"""Path, part of the API, handler."""


def _write(sandbox: Sandbox, exchange: Exchange, write: Callable[..., Write]) -> Response:
    version, type_ = exchange.version or "", exchange.resource_type or ""
    check_media_type(exchange.request.headers.get("content-type", ""), sandbox.profile)
    body = _body(exchange)
    require_type(version, type_)
    resource = parse(body, version, type_)
    check_limits(resource, len(body), sandbox.profile)
    asked = write(method=exchange.method, resource_type=type_, resource=resource, received=body)
    done = _carry_out(sandbox, exchange, plan(sandbox.store, asked, sandbox.profile))
    if done.plan.action != "nothing":
        exchange.stored = done.path
    url = f"{exchange.base}/{done.path}"
    headers = {"Content-Location": url}
    if exchange.method == "POST" or not sandbox.profile.is_hapi:
        headers["Location"] = url
    if done.version is not None:
        headers |= _stamps(done.version)
    match _preferred(exchange):
        case "minimal":
            return Response(b"", done.plan.status, headers)
        case "operationoutcome":
            outcome = succeeded(done.plan.code, f'Successfully processed resource "{done.path}".')
            return _json(exchange, outcome, done.plan.status, headers)
    return _json(exchange, done.shown, done.plan.status, headers)


def _carry_out(sandbox: Sandbox, exchange: Exchange, planned: Plan) -> Written:
    return carry_out(
        sandbox.store,
        planned,
        sandbox.profile,
        request=exchange.number,
        request_id=exchange.request.headers.get("x-request-id") or secrets.token_urlsafe(12),
        index_lag=max(sandbox.config.index_lag_seconds, sandbox.faults.index_lag(exchange)),
    )


def _read(sandbox: Sandbox, exchange: Exchange) -> Response:
    stored = _found(sandbox, exchange)
    asked = exchange.request.path_params.get("vid", stored.latest.version_id)
    for version in stored.versions:
        if version.version_id == asked:
            where = f"{exchange.base}/{stored.resource_type}/{stored.id}/_history/{asked}"
            if version.deleted:
                break
            headers = {"Content-Location": where, **_stamps(version)}
            return _json(exchange, stored.as_stored(version), 200, headers)
    raise Refusal(
        404,
        f'HAPI-0979: Version "{asked}" is not valid for resource '
        f"{stored.resource_type}/{stored.id}",
    )


def _found(sandbox: Sandbox, exchange: Exchange) -> StoredResource:
    version, type_ = exchange.version or "", exchange.resource_type or ""
    id_ = str(exchange.request.path_params["id"])
    require_type(version, type_)
    stored = sandbox.store.find(NOBODY, version, type_, id_)
    if stored is None:
        raise Refusal(404, f"HAPI-2001: Resource {type_}/{id_} is not known")
    if stored.latest.deleted and "vid" not in exchange.request.path_params:
        raise Refusal(
            sandbox.profile.gone,
            f"Resource was deleted at {stored.latest.last_updated.isoformat()}",
        )
    return stored


def _search(sandbox: Sandbox, exchange: Exchange, query: Query) -> Response:
    version, type_ = exchange.version or "", exchange.resource_type or ""
    require_type(version, type_)
    # Only HAPI keeps what a search found.
    asks_for_now = "no-cache" in exchange.request.headers.get("cache-control", "")
    fresh = asks_for_now or not sandbox.profile.is_hapi
    url = f"{exchange.base}/{type_}"
    shelf = shelf_of(sandbox.store, version, type_)
    try:
        return _json(exchange, sandbox.searches.search(shelf, query, url, fresh=fresh), 200)
    except ValueError as wrong:
        raise Refusal(400, f"HAPI-0524: {wrong}") from None


def _body(exchange: Exchange) -> bytes:
    if exchange.request.headers.get("content-encoding", "").lower() != "gzip":
        return exchange.body
    try:
        return gzip.decompress(exchange.body)
    except (OSError, EOFError, zlib.error):
        raise Refusal(400, "HAPI-0450: Failed to parse request body as JSON resource") from None


def _preferred(exchange: Exchange) -> str:
    for part in exchange.request.headers.get("prefer", "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "return":
            return value.strip().lower()
    return ""


def _stamps(version: StoredVersion) -> dict[str, str]:
    return {
        "ETag": f'W/"{version.version_id}"',
        "Last-Modified": format_datetime(version.last_updated, usegmt=True),
    }


def _json(
    exchange: Exchange, content: Any, status: int, headers: dict[str, str] | None = None
) -> Response:
    return Response(
        orjson.dumps(content),
        status,
        headers,
        media_type=f"{_MEDIA_TYPES.get(exchange.version or '', _MEDIA_TYPE)};charset=utf-8",
    )
