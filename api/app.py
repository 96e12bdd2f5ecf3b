"""The FastAPI application: its routes, its middleware, and what its routes share."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from uplift import __version__
from uplift.admin_port import loop_responds, served
from uplift.api import (
    batches,
    control,
    device_tokens,
    docs_page,
    error_handlers,
    health,
    jwks,
    reading,
    request_ids,
    uploads,
    users,
)
from uplift.api.admission import Admission
from uplift.api.direct_route import serve_directly
from uplift.api.head_requests import HeadAsGet
from uplift.api.latency import Latency
from uplift.api.openapi import DESCRIPTION, LICENSE, TAGS, describe
from uplift.api.rate_limits import RATE_LIMIT_HEADERS, RateLimits
from uplift.api.remembered import Remembered
from uplift.api.response_headers import ResponseHeaders
from uplift.api.slashes import KeepSlashes
from uplift.api.traced_requests import TracedRequests
from uplift.api.work import CountWork
from uplift.ledger.database import FOR_A_CALLER
from uplift.logs import configure_logs
from uplift.settings import Settings
from uplift.traces import tracing
from uplift.wiring import open_relay

_SWITCH_SECONDS = 0.0005


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Its start raises ConfigurationError if a setting is missing."""
    settings = settings or Settings()
    configure_logs(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        # Threads parse large bodies. By default each step of the loop would wait 5 ms for one.
        sys.setswitchinterval(_SWITCH_SECONDS)
        with (
            served(
                settings, lambda: None if loop_responds(loop) else "the event loop does not respond"
            ),
            tracing(settings, "api"),
        ):
            async with open_relay(settings, FOR_A_CALLER) as relay:
                app.state.relay = relay
                relay.heartbeats.begin("api")
                app.state.admission = Admission(settings)
                app.state.readiness = Remembered(lambda: health.check(relay), late=health.LATE)
                app.state.jwks = Remembered(lambda: jwks.read_jwks(relay), late=jwks.LATE)
                app.state.rate_limits = RateLimits(settings)
                yield

    app = FastAPI(
        title="Uplift",
        version=__version__,
        description=DESCRIPTION,
        license_info=LICENSE,
        openapi_tags=TAGS,
        servers=[{"url": settings.api_public_url or "/", "description": "This API."}],
        # The name of its function: each operation has a name of its own.
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
        # A redirect would take its address from the Host header, and the client would send the body
        # there.
        redirect_slashes=False,
        # FastAPI's own pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
        # FastAPI would write the description again for each who asks.
        openapi_url=None,
    )
    app.state.stopping = False
    app.state.health_spacing = health.health_spacing()
    # The last one added runs first.
    app.add_middleware(CountWork)
    error_handlers.install(app)
    _allow_origins(app, settings)
    app.add_middleware(ResponseHeaders)
    app.add_middleware(Latency)
    if settings.traces_url is not None:
        app.add_middleware(TracedRequests)
    app.add_middleware(KeepSlashes)
    app.add_middleware(HeadAsGet)
    request_ids.install(app)
    serve_directly(app, uploads.router, uploads.submit_upload, uploads.serve_submission)
    for router in (
        uploads.router,
        control.router,
        batches.router,
        users.router,
        device_tokens.router,
        reading.router,
        health.router,
        jwks.router,
        docs_page.router,
    ):
        app.include_router(router)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    return app


def _allow_origins(app: FastAPI, settings: Settings) -> None:
    """Let pages of the origins that the settings list call the API (CORS). None may by default."""
    if not settings.cors_origins:
        return
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins.split(","),
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=[
            "Authorization",
            "Content-Encoding",
            "Content-Type",
            "Idempotency-Key",
            "If-None-Match",
            "X-Request-ID",
        ],
        expose_headers=[
            "ETag",
            "Idempotent-Replayed",
            "Location",
            "Retry-After",
            "X-Request-ID",
            *RATE_LIMIT_HEADERS,
        ],
    )
