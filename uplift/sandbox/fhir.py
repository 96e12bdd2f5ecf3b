"""The FHIR API: what each user may do with their own data, `$everything` among it."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.responses import Response

from uplift.sandbox import capabilities
from uplift.sandbox.accounts import Account
from uplift.sandbox.exchange import Exchange
from uplift.sandbox.responses import message, operation_outcome, response
from uplift.sandbox.search import Query, everything, search
from uplift.sandbox.state import Sandbox
from uplift.sandbox.store import StoredResource, StoredVersion

_JSON = ("application/json", "application/fhir+json", "application/json+fhir")
_Action = Callable[[Sandbox, Exchange, Account], Response]


def caller(sandbox: Sandbox, exchange: Exchange) -> Account | None:
    """Whose credentials a FHIR request carries: a bearer token, or the application's own."""
    headers, config = exchange.request.headers, sandbox.config
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return sandbox.accounts.holder_of_access(token.strip())
    if (headers.get("client_id"), headers.get("client_secret")) == (
        config.client_id,
        config.client_secret,
    ):
        return sandbox.accounts.by_oneup_id(headers.get("x-oneup-user-id", ""))
    return None


def types(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/{type}`: POST creates, GET searches."""
    return _act(sandbox, exchange, {"POST": _create, "GET": _search})


def searches(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/{type}/_search`: POST searches, with parameters in the form and the query."""
    return _act(sandbox, exchange, {"POST": _search_by_form})


def instances(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/{type}/{id}`: GET reads, POST and PUT update, DELETE deletes."""
    actions: dict[str, _Action] = {"GET": _read, "POST": _update, "PUT": _update}
    return _act(sandbox, exchange, {**actions, "DELETE": _delete})


def versions(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/{type}/{id}/_history/{vid}`: GET reads one version."""
    return _act(sandbox, exchange, {"GET": _read})


def patient_everything(sandbox: Sandbox, exchange: Exchange) -> Response:
    """`/{version}/Patient/{id}/$everything`: GET gives everything of the user, by pages."""
    return _act(sandbox, exchange, {"GET": _everything})


def _act(sandbox: Sandbox, exchange: Exchange, actions: dict[str, _Action]) -> Response:
    if not capabilities.is_known(exchange.version or "", exchange.resource_type or ""):
        return message(404, "Not Found")
    if exchange.account is None or sandbox.faults.consent_ended(exchange):
        return message(401, "Unauthorized")
    action = actions.get(exchange.method)
    if action is None:
        return message(405, "Method Not Allowed")
    return action(sandbox, exchange, exchange.account)


def _key(exchange: Exchange, account: Account) -> tuple[str, str, str]:
    return account.oneup_user_id, exchange.version or "", exchange.resource_type or ""


def _create(sandbox: Sandbox, exchange: Exchange, account: Account) -> Response:
    refused = _refuse_body(exchange)
    if refused is not None:
        return refused
    id_ = exchange.json.get("id") if sandbox.config.keeps_ids else None
    return _commit(sandbox, exchange, account, id_, update=False)


def _update(sandbox: Sandbox, exchange: Exchange, account: Account) -> Response:
    refused = _refuse_body(exchange)
    if refused is not None:
        return refused
    id_ = str(exchange.request.path_params["id"])
    if sandbox.config.keeps_ids and exchange.json.get("id", id_) != id_:
        return operation_outcome(400, "invalid", "The id of the resource is not the id of the URL")
    known = sandbox.store.find(*_key(exchange, account), id_)
    if known is None and not sandbox.config.update_creates:
        return _not_found(exchange)
    return _commit(sandbox, exchange, account, id_, update=True)


def _delete(sandbox: Sandbox, exchange: Exchange, account: Account) -> Response:
    version, resource_type = exchange.version or "", exchange.resource_type or ""
    id_ = str(exchange.request.path_params["id"])
    known = sandbox.store.find(*_key(exchange, account), id_)
    if known is None:
        return _not_found(exchange)
    if not known.latest.deleted:
        owner = account.oneup_user_id
        sandbox.store.delete(owner, version, resource_type, id_, request=exchange.number)
    return Response(status_code=204)


def _refuse_body(exchange: Exchange) -> Response | None:
    version, resource_type = exchange.version or "", exchange.resource_type or ""
    if not capabilities.may_write(version, resource_type):
        return operation_outcome(405, "not-supported", f"{resource_type} cannot be written")
    headers = exchange.request.headers
    if headers.get("content-type", "").partition(";")[0].strip().lower() not in _JSON:
        return operation_outcome(415, "not-supported", "Content-Type must be application/json")
    if "content-encoding" in headers:
        return operation_outcome(415, "not-supported", "Content-Encoding is not supported")
    resource = exchange.json
    if not isinstance(resource, dict):
        return operation_outcome(400, "structure", "The body is not a JSON object")
    if resource.get("resourceType") != resource_type:
        return operation_outcome(400, "invalid", "resourceType is not the type of the URL")
    id_ = resource.get("id")
    if id_ is not None and (not isinstance(id_, str) or not id_ or "/" in id_):
        return operation_outcome(400, "value", "id must be a string that fits into a URL")
    return None


def _commit(
    sandbox: Sandbox, exchange: Exchange, account: Account, id_: str | None, *, update: bool
) -> Response:
    try:
        stored = sandbox.store.put(
            user=account.oneup_user_id,
            version=exchange.version or "",
            resource=exchange.json,
            received=exchange.body,
            id_=id_,
            update=update,
            request=exchange.number,
            index_lag=max(sandbox.config.index_lag_seconds, sandbox.faults.index_lag(exchange)),
        )
    except orjson.JSONEncodeError:
        return operation_outcome(400, "structure", "The body is nested too deeply")
    latest = stored.latest
    path = f"{stored.resource_type}/{stored.id}/_history/{latest.version_id}"
    exchange.stored = path
    headers = {"Location": f"{exchange.base}/{path}"} if sandbox.config.location_headers else {}
    status = 200 if update else sandbox.config.create_status
    return _resource(sandbox, stored, latest, status, headers)


def _read(sandbox: Sandbox, exchange: Exchange, account: Account) -> Response:
    params = exchange.request.path_params
    stored = sandbox.store.find(*_key(exchange, account), params["id"])
    if stored is None:
        return _not_found(exchange)
    asked = params.get("vid", stored.latest.version_id)
    for version in stored.versions:
        if version.version_id == asked and version.deleted:
            return operation_outcome(410, "deleted", f"{stored.resource_type} is deleted")
        if version.version_id == asked:
            return _resource(sandbox, stored, version, 200, {})
    return _not_found(exchange)


def _resource(
    sandbox: Sandbox,
    stored: StoredResource,
    version: StoredVersion,
    status: int,
    headers: dict[str, str],
) -> Response:
    if sandbox.config.location_headers:
        headers["ETag"] = f'W/"{version.version_id}"'
    return response(stored.as_stored(version), status, headers, fhir=True)


def _not_found(exchange: Exchange) -> Response:
    id_ = exchange.request.path_params["id"]
    return operation_outcome(404, "not-found", f"{exchange.resource_type}/{id_} is not known")


def _search(sandbox: Sandbox, exchange: Exchange, account: Account) -> Response:
    return _search_for(sandbox, exchange, account, exchange.request.query_params.multi_items())


def _search_by_form(sandbox: Sandbox, exchange: Exchange, account: Account) -> Response:
    content_type = exchange.request.headers.get("content-type", "").partition(";")[0].strip()
    if content_type.lower() != "application/x-www-form-urlencoded":
        return operation_outcome(415, "not-supported", "Send a form")
    form = parse_qsl(exchange.body.decode("utf-8", "replace"), keep_blank_values=True)
    query = exchange.request.query_params.multi_items()
    return _search_for(sandbox, exchange, account, [*query, *form])


def _search_for(sandbox: Sandbox, exchange: Exchange, account: Account, query: Query) -> Response:
    if not capabilities.may_search(exchange.version or "", exchange.resource_type or ""):
        return message(405, "Method Not Allowed")
    shelf = sandbox.store.shelf(*_key(exchange, account))
    url = f"{exchange.base}/{exchange.resource_type}"
    return _bundle(lambda: search(shelf, query, url, time.monotonic()))


def _everything(sandbox: Sandbox, exchange: Exchange, account: Account) -> Response:
    if exchange.resource_type != "Patient":
        return message(404, "Not Found")
    id_ = exchange.request.path_params["id"]
    user, version, _ = _key(exchange, account)
    patient = sandbox.store.find(user, version, "Patient", id_)
    if patient is None or patient.latest.deleted:
        return _not_found(exchange)
    rest = (
        resource
        for (owner, of_version, _), shelf in sandbox.store.shelves()
        if (owner, of_version) == (user, version)
        for resource in shelf.resources.values()
        if resource is not patient and not resource.latest.deleted
    )
    url = f"{exchange.base}/Patient/{id_}/$everything"
    query = exchange.request.query_params.multi_items()
    return _bundle(lambda: everything([patient, *rest], query, url, exchange.base))


def _bundle(page: Callable[[], dict[str, Any]]) -> Response:
    try:
        return response(page(), fhir=True)
    except ValueError as wrong:
        return operation_outcome(400, "invalid", str(wrong))
