"""Logins by what a key signs, at a server that verifies it: one token for all; keys rotate."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import orjson
import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from tests.keys import KEY_RING
from tests.uplift.tokens.login_keys import ec_private, pem, rsa_private, write_service_account
from uplift.destinations.destination import (
    Destination,
    Mode,
    PrivateKeyLogin,
    ServiceAccountLogin,
    Subject,
    TokenLogin,
)
from uplift.destinations.http_client import open_http
from uplift.errors import LoginFailed
from uplift.fhir.versions import FhirVersion
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.tokens.channels import login_source
from uplift.tokens.login_keys import shown_keys
from uplift.tokens.logins import LoginSource
from uplift.tokens.signing_keys import key_set

HEALTHCARE = "https://www.googleapis.com/auth/cloud-healthcare"
WRITES = "system/*.cruds"


def destination(url: str, login: TokenLogin) -> Destination:
    return Destination(
        name="clinic",
        bases={FhirVersion.R4: f"{url}/r4"},
        mode=Mode.PUT,
        subject=Subject.PATIENT,
        login=login,
        media_type="application/fhir+json",
        max_attempts_per_second=10,
    )


class Processes:
    """The processes of a deployment, as many as are wanted."""

    def __init__(self, server: SandboxServer, http: httpx.AsyncClient) -> None:
        self._server, self._http, self._redis = server, http, FakeServer()

    def start(self, login: TokenLogin) -> LoginSource:
        where = destination(self._server.url, login)
        redis = FakeAsyncRedis(server=self._redis)
        source = login_source(where, self._http, redis, KEY_RING)
        assert source is not None
        return source

    @property
    def token_url(self) -> str:
        return self._server.token_url

    async def status(self, source: LoginSource) -> int:
        """What a read of the server answers to the token of a process."""
        token = (await source.token()).authorization
        answer = await self._http.get(
            f"{self._server.url}/r4/Patient", headers={"Authorization": token}
        )
        return answer.status_code

    def asked(self) -> int:
        """How often a token was asked for."""
        return len(self._server.requests(api="token"))


@asynccontextmanager
async def processes_at(config: SandboxConfig) -> AsyncIterator[Processes]:
    with SandboxServer(config) as server:
        async with open_http(connections=8) as http:
            yield Processes(server, http)


class Keys:
    """Two keys of a deployment, and what the server knows of them."""

    def __init__(self, folder: Path) -> None:
        self.first, self.second = folder / "first.pem", folder / "second.pem"
        self.first.write_bytes(pem(ec_private()))
        self.second.write_bytes(pem(rsa_private()))
        self.jwks = folder / "jwks.json"
        self.config = SandboxConfig(like="hapi", auth="private_key_jwt", jwks=self.jwks)

    def login(self, key: Path, other: Path | None = None) -> PrivateKeyLogin:
        return PrivateKeyLogin(self.config.client_id, key, other, scope=WRITES)

    def register(self, server_knows: PrivateKeyLogin) -> None:
        """What `uplift destinations jwks` prints goes to the server."""
        keys = shown_keys([destination("http://unused", server_knows)])
        self.jwks.write_bytes(orjson.dumps(key_set(keys)))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


async def test_a_token_is_asked_for_once_for_all_processes(keys: Keys) -> None:
    login = keys.login(keys.first)
    keys.register(login)
    async with processes_at(keys.config) as processes:
        running = [processes.start(login) for _ in range(3)]
        asking = [processes.status(each) for each in running for _ in range(3)]
        assert set(await asyncio.gather(*asking)) == {200}
        assert processes.asked() == 1


async def test_a_service_account_logs_in(tmp_path: Path) -> None:
    file = tmp_path / "sa.json"
    config = SandboxConfig(like="hapi", auth="jwt_bearer", service_account=file)
    async with processes_at(config) as processes:
        write_service_account(file, processes.token_url)
        login = ServiceAccountLogin(file, HEALTHCARE)
        running = [processes.start(login) for _ in range(2)]
        assert [await processes.status(each) for each in running] == [200, 200]
        assert processes.asked() == 1


async def test_keys_rotate_and_no_login_fails(keys: Keys) -> None:
    old, both = keys.login(keys.first), keys.login(keys.first, keys.second)
    turned, new = keys.login(keys.second, keys.first), keys.login(keys.second)
    async with processes_at(keys.config) as processes:
        # Each step as the page has it: what the server knows, then what the processes sign with.
        for known, running in ((old, old), (both, old), (both, both), (both, turned), (new, new)):
            keys.register(known)
            process = processes.start(running)
            refused = await process.token()
            assert await process.token(refused=refused) != refused, "it was asked for anew"
            assert await processes.status(process) == 200


async def test_a_key_that_the_server_does_not_know_yet_holds_until_it_does(keys: Keys) -> None:
    keys.register(keys.login(keys.first))
    async with processes_at(keys.config) as processes:
        login = keys.login(keys.second)
        with pytest.raises(LoginFailed) as raised:
            await processes.start(login).token()
        assert raised.value.code == "unknown_key"
        keys.register(login)
        assert await processes.status(processes.start(login)) == 200
