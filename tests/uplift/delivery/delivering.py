"""Single attempts against a simulated 1upHealth."""

from typing import Any

from pydantic import SecretStr
from sqlalchemy import text

from tests import factories
from uplift.intake.accept import Accepted
from uplift.ledger.uploads import UploadRow
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay


async def deliver(relay: Relay, accepted: Accepted) -> UploadRow:
    """One attempt, whatever the retry clock says."""
    async with relay.database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET next_attempt_at = now() WHERE state = 'queued'")
        )
    await relay.deliverer.deliver([accepted.upload.id])
    return await factories.status(relay, accepted)


def against(upstream: SandboxServer, settings: Settings, **more: Any) -> Settings:
    """The settings for another upstream."""
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
