"""The application: routes, and the path of one request through log and faults."""

import hashlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from uplift.sandbox import fhir, metadata, oauth
from uplift.sandbox.accounts import Account
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.control import Control
from uplift.sandbox.exchange import Api, Exchange
from uplift.sandbox.gate import Gate
from uplift.sandbox.responses import message
from uplift.sandbox.servers import login, routes
from uplift.sandbox.servers.bundles import written_by
from uplift.sandbox.sockets import NoAnswer
from uplift.sandbox.state import LogEntry, Sandbox

_Handler = Callable[[Sandbox, Exchange], Response]
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def create_app(config: SandboxConfig | None = None) -> Starlette:
    """A simulated 1upHealth, or what it is to be like. Its state is `app.state.sandbox`."""
    sandbox = Sandbox(config or SandboxConfig())

    def route(path: str, api: Api, handler: _Handler) -> Route:
        return Route(path, _endpoint(sandbox, api, handler), methods=_METHODS)

    if sandbox.config.profile is not None:
        served: list[BaseRoute] = [route(*each) for each in routes.ROUTES]
    else:
        served = [
            route("/user-management/v1/user", "user-management", oauth.user),
            route("/user-management/v1/user/auth-code", "user-management", oauth.auth_code),
            Mount("/fhir", routes=[route(*each) for each in _ONEUP]),
            *[route(*each) for each in _ONEUP],
        ]
    app = Starlette(
        routes=[
            Mount(
                "/_sandbox",
                routes=Control(sandbox).routes(),
                middleware=[Middleware(Gate, token=sandbox.config.control_token)],
            ),
            *served,
            route("/{path:path}", "none", lambda _sandbox, _exchange: message(404, "Not Found")),
        ]
    )
    app.state.sandbox = sandbox
    return app


_ONEUP: list[tuple[str, Api, _Handler]] = [
    ("/oauth2/token", "token", oauth.token),
    ("/{version}/metadata", "fhir", metadata.metadata),
    ("/{version}/{type}", "fhir", fhir.types),
    ("/{version}/{type}/_search", "fhir", fhir.searches),
    ("/{version}/{type}/{id}", "fhir", fhir.instances),
    ("/{version}/{type}/{id}/$everything", "fhir", fhir.patient_everything),
    ("/{version}/{type}/{id}/_history/{vid}", "fhir", fhir.versions),
]


def _endpoint(
    sandbox: Sandbox, api: Api, handler: _Handler
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        started = time.monotonic()
        sandbox.requests_seen += 1
        entry = LogEntry(
            number=sandbox.requests_seen,
            received_at=datetime.now(UTC),
            api=api,
            method=request.method,
            path=request.scope["path"],
            query=request.url.query if api == "fhir" else "",
            request_id=request.headers.get("x-request-id"),
            if_match=request.headers.get("if-match"),
        )
        sandbox.log.append(entry)
        try:
            body = await request.body()
        except ClientDisconnect:
            entry.fault = "client_disconnected"
            return Response(status_code=400)
        exchange = Exchange(entry.number, request, api, body)
        exchange.account = _account(sandbox, exchange)
        entry.version, entry.type = exchange.version, exchange.resource_type
        if api == "fhir":
            entry.id = exchange.resource_id
            entry.size = len(body)
            entry.sha256 = hashlib.sha256(body).hexdigest() if body else None
            if sandbox.config.profile is not None and request.method == "POST" and not entry.type:
                entry.entries = written_by(exchange.json)
        elif api == "token":
            entry.grant_type = exchange.params.get("grant_type")
        entry.user = exchange.account.oneup_user_id if exchange.account else None

        def handle(exchange: Exchange) -> Response:
            real = handler(sandbox, exchange)
            entry.stored = exchange.stored
            return real

        response, entry.fault = await sandbox.faults.apply(exchange, handle)
        entry.status = None if isinstance(response, NoAnswer) else response.status_code
        entry.seconds = time.monotonic() - started
        return response

    return endpoint


def _account(sandbox: Sandbox, exchange: Exchange) -> Account | None:
    match exchange.api:
        case "fhir" | "token" if sandbox.config.profile is not None:
            return login.caller(sandbox, exchange)
        case "fhir":
            return fhir.caller(sandbox, exchange)
        case "token":
            return oauth.holder_of_grant(sandbox, exchange)
        case "user-management":
            return oauth.named_user(sandbox, exchange)
        case "none":
            return None
