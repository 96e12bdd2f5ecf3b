"""The intake API: a thin door over the relay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from uplift.admin_port import loop_responds, served
from uplift.api import (
    batches,
    control,
    device_tokens,
    health,
    problems,
    reading,
    uploads,
    users,
)
from uplift.api.intake import Intake
from uplift.api.limits import Limits
from uplift.api.request_ids import RequestIds
from uplift.api.slashes import KeepSlashes
from uplift.logs import configure_logs
from uplift.settings import Settings
from uplift.wiring import open_relay

_DESCRIPTION = """
Takes FHIR resources of a person from a device and sees them safely to the person's 1upHealth
account. **202 means durable**; every accepted upload ends in exactly one true, visible state.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Raises ConfigurationError at start-up if a setting is missing."""
    settings = settings or Settings()
    configure_logs(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        with served(
            settings, lambda: None if loop_responds(loop) else "the event loop does not answer"
        ):
            async with open_relay(settings) as relay:
                app.state.relay = relay
                app.state.intake = Intake(settings)
                app.state.limits = Limits(settings)
                yield

    app = FastAPI(
        title="Uplift",
        version="0.1.0",
        description=_DESCRIPTION,
        lifespan=lifespan,
        # A redirect would take its address from the Host header, and a body with it.
        redirect_slashes=False,
    )
    problems.install(app)
    app.add_middleware(KeepSlashes)
    app.add_middleware(RequestIds)
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
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with problems in place of its own validation errors."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path in schema["paths"].values():
            for operation in path.values():
                if "application/json" in operation["responses"].get("422", {}).get(
                    "content", {}
                ):
                    del operation["responses"]["422"]
        schemas = schema["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = problems.PROBLEM_SCHEMA
        app.openapi_schema = schema
    return app.openapi_schema
