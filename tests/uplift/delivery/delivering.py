"""Single attempts against a simulated 1upHealth."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg
from pydantic import SecretStr
from sqlalchemy import text

from tests import factories
from uplift.intake.accept import Accepted
from uplift.ledger import fair_queue
from uplift.ledger.uploads import UploadRow
from uplift.queues import UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay


async def deliver(relay: Relay, accepted: Accepted) -> UploadRow:
    """One attempt now, whenever the upload is due."""
    async with relay.database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET next_attempt_at = now() WHERE state = 'queued'")
        )
    await deliver_only(relay, accepted.upload.id)
    return await factories.status(relay, accepted)


async def deliver_only(relay: Relay, *ids: UUID) -> None:
    """Deliver those of these that are due, as if the sweep had found nothing else."""
    async with relay.database.transaction() as connection:
        await connection.execute(text("UPDATE uploads SET finish_tag = NULL"))
        await fair_queue.tag(connection, ids)
    await relay.deliverer.deliver(UPLOADS)


def against(upstream: SandboxServer, settings: Settings, **more: Any) -> Settings:
    """The settings for another upstream, which the ledger takes for its destination from now on."""
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("DELETE FROM destinations")
    return settings.model_copy(
        update={
            "oneup_fhir_url": upstream.fhir_url,
            "oneup_token_url": upstream.token_url,
            "oneup_users_url": upstream.users_url,
            "oneup_client_secret": SecretStr(upstream.config.client_secret),
            **more,
        }
    )


def writes(upstream: SandboxServer) -> list[dict[str, Any]]:
    """The creates and updates that reached it."""
    return [each for each in upstream.requests(api="fhir") if each["method"] == "POST"]


async def until(is_so: Callable[[], bool | Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait until that is so. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            found = is_so()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.05)
