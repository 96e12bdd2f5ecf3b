"""The FastAPI application: its routes, its middleware, and what its routes share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from uplift import __version__
from uplift.admin_port import loop_responds, served
from uplift.api import (
    batches,
    control,
    device_tokens,
    error_handlers,
    health,
    reading,
    request_ids,
    uploads,
    users,
)
from uplift.api.admission import Admission
from uplift.api.head_requests import HeadAsGet
from uplift.api.openapi import DESCRIPTION, describe
from uplift.api.rate_limits import RateLimits
from uplift.api.slashes import KeepSlashes
from uplift.logs import configure_logs
from uplift.settings import Settings
from uplift.wiring import open_relay


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Its start raises ConfigurationError if a setting is missing."""
    settings = settings or Settings()
    configure_logs(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        with served(
            settings, lambda: None if loop_responds(loop) else "the event loop does not respond"
        ):
            async with open_relay(settings) as relay:
                app.state.relay = relay
                app.state.admission = Admission(settings)
                app.state.rate_limits = RateLimits(settings)
                yield

    app = FastAPI(
        title="Uplift",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        # A redirect would take its address from the Host header, and the client would send the body
        # there.
        redirect_slashes=False,
    )
    # The last one added runs first.
    error_handlers.install(app)
    app.add_middleware(KeepSlashes)
    app.add_middleware(HeadAsGet)
    request_ids.install(app)
    for router in (
        uploads.router,
        control.router,
        batches.router,
        users.router,
        device_tokens.router,
        reading.router,
        health.router,
    ):
        app.include_router(router)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    return app
