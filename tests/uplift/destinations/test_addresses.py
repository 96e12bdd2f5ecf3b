"""1upHealth's newer and older addresses, chosen by settings, from sign-up to delivery."""

from collections.abc import AsyncIterator

import pytest

from tests import factories
from uplift.lifecycle import State
from uplift.queues import UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

OLDER_FHIR = "/fhir"
NEWER_FHIR = ""
OLDER_TOKEN = "/fhir/oauth2/token"
NEWER_TOKEN = "/oauth2/token"


@pytest.fixture(params=[NEWER_FHIR, OLDER_FHIR, "/fhir/"], ids=["newer", "older", "older/"])
def fhir_path(request: pytest.FixtureRequest) -> str:
    """Below it are the FHIR versions."""
    return str(request.param)


@pytest.fixture(params=[NEWER_TOKEN, OLDER_TOKEN], ids=["newer token", "older token"])
def token_path(request: pytest.FixtureRequest) -> str:
    """The token endpoint."""
    return str(request.param)


@pytest.fixture
def settings(
    settings: Settings, upstream: SandboxServer, fhir_path: str, token_path: str
) -> Settings:
    """Settings as a deployment writes them."""
    return Settings.model_validate(
        settings.model_dump()
        | {
            "oneup_fhir_url": upstream.url + fhir_path,
            "oneup_token_url": upstream.url + token_path,
        }
    )


@pytest.fixture
async def relay(settings: Settings, database: object) -> AsyncIterator[Relay]:
    """The use cases, wired to these addresses."""
    async with open_relay(settings) as opened:
        yield opened


async def test_users_are_made_tokens_refreshed_and_records_delivered(
    relay: Relay, upstream: SandboxServer, fhir_path: str, token_path: str
) -> None:
    await factories.user(relay)
    accepted = []
    for fhir_version in ("DSTU2", "STU3", "R4"):
        accepted.append(await factories.accepted(relay, fhir_version=fhir_version))
        await relay.deliverer.deliver(UPLOADS)
    upstream.faults({"kind": "expire_tokens"})
    accepted.append(await factories.accepted(relay, id="obs-2"))
    await relay.deliverer.deliver(UPLOADS)

    states = [(await factories.status(relay, each)).state for each in accepted]
    assert states == [State.DELIVERED] * 4
    base = fhir_path.rstrip("/")
    asked = [(each["path"], each["grant_type"], each["status"]) for each in upstream.requests()]
    assert asked == [
        ("/user-management/v1/user", None, 201),
        (token_path, "authorization_code", 200),
        (f"{base}/dstu2/Observation", None, 201),
        (f"{base}/stu3/Observation", None, 201),
        (f"{base}/r4/Observation", None, 201),
        (f"{base}/r4/Observation", None, 401),
        (token_path, "refresh_token", 200),
        (f"{base}/r4/Observation", None, 201),
    ]
