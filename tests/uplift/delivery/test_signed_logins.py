"""Uploads to a server that wants something signed before it takes them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import factories
from tests.uplift.delivery.at_hapi import ended, relay_of
from tests.uplift.delivery.delivering import deliver
from tests.uplift.tokens.login_keys import write_service_account
from uplift.ledger.database import Database
from uplift.lifecycle import Reason, State
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.tokens.signing_keys import SigningKey, key_set, new_key, write_key

pytestmark = pytest.mark.usefixtures("database")


class Clinic:
    """A server, the files of both sides, and the settings of a deployment that knows it."""

    def __init__(self, folder: Path, auth: Any) -> None:
        self.key_file, self.jwks = folder / "key.pem", folder / "jwks.json"
        self.account = folder / "account.json"
        self.key = new_key("ES384")
        write_key(self.key, self.key_file)
        self.register(self.key)
        self.server = SandboxServer(
            SandboxConfig(like="hapi", auth=auth, jwks=self.jwks, service_account=self.account)
        )

    def register(self, *keys: SigningKey) -> None:
        self.jwks.write_text(json.dumps(key_set(keys)))

    def settings(self, settings: Settings) -> Settings:
        auth = self.server.config.auth
        own: dict[str, Any] = {
            "destination_client_id": self.server.config.client_id,
            "destination_key_file": self.key_file,
            "destination_scope": "system/*.cruds",
        }
        if auth == "jwt_bearer":
            write_service_account(self.account, self.server.token_url)
            scope = "https://www.googleapis.com/auth/cloud-healthcare"
            own = {"destination_service_account_file": self.account, "destination_scope": scope}
        where = {
            "destination": "hapi",
            "destination_r4": f"{self.server.url}/r4",
            "destination_login": auth,
            "oneup_client_id": "",
        }
        return settings.model_copy(update={**where, **own})


@pytest.fixture(params=["private_key_jwt", "jwt_bearer"])
def clinic(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Clinic]:
    made = Clinic(tmp_path, request.param)
    with made.server:
        yield made


async def test_a_record_arrives_and_an_ended_token_is_replaced(
    clinic: Clinic, settings: Settings, database: Database
) -> None:
    async with relay_of(clinic.settings(settings)) as relay:
        row = await ended(relay, await factories.accepted(relay))
        assert (row.state, row.reason) == (State.DELIVERED, None)
        clinic.server.faults({"kind": "expire_tokens"})
        row = await ended(relay, await factories.accepted(relay, status="amended"))
        assert (row.state, row.attempts) == (State.DELIVERED, 1)
    (resource,) = clinic.server.resources(type="Observation")
    assert len(resource["versions"]) == 2
    assert len(clinic.server.requests(api="token")) == 2


@pytest.mark.parametrize("clinic", ["private_key_jwt"], indirect=True)
async def test_a_key_that_the_server_does_not_know_holds_and_parks_nobody(
    clinic: Clinic, settings: Settings, database: Database
) -> None:
    clinic.register()
    async with relay_of(clinic.settings(settings)) as relay:
        upload = await factories.accepted(relay)
        row = await deliver(relay, upload)
        assert (row.state, row.reason) == (State.QUEUED, Reason.HELD)
        assert row.last_response == "login_unknown_key"
        clinic.register(clinic.key)
    # Another process, which has no failure of a moment ago to wait for.
    async with relay_of(clinic.settings(settings)) as relay:
        assert (await ended(relay, upload)).state is State.DELIVERED
