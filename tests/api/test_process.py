"""The API as a process: it starts or says what to change, and its output names nobody."""

import asyncio
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest
from sqlalchemy import text

from tests import factories
from tests.api.calls import NOBODYS_ID, bearer, device_token, make_keys
from tests.factories import resource as fhir_resource
from uplift.ledger.database import Database
from uplift.settings import Settings
from uplift.wiring import open_relay


def _environment(settings: Settings, port: int) -> dict[str, str]:
    assert settings.database_url is not None
    assert settings.redis_url is not None
    assert settings.master_keys is not None
    return {
        "PATH": os.environ["PATH"],
        "UPLIFT_DATABASE_URL": settings.database_url.get_secret_value(),
        "UPLIFT_REDIS_URL": settings.redis_url.get_secret_value(),
        "UPLIFT_MASTER_KEYS": settings.master_keys.get_secret_value(),
        "UPLIFT_ONEUP_FHIR_URL": settings.oneup_fhir_url,
        "UPLIFT_ONEUP_USERS_URL": settings.oneup_users_url,
        "UPLIFT_ONEUP_TOKEN_URL": settings.oneup_token_url,
        "UPLIFT_ONEUP_CLIENT_ID": settings.oneup_client_id,
        "UPLIFT_ONEUP_CLIENT_SECRET": "client-canary",
        "UPLIFT_LOG_LEVEL": "debug",
        "UPLIFT_API_PORT": str(port),
        "UPLIFT_DRAIN_SECONDS": "0.5",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def _process(environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from uplift.api.process import main; main()",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _until_ready(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(30):
        while True:
            assert process.returncode is None, "The API ended by itself."
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def test_its_whole_output_has_no_name_token_key_or_record_even_at_debug(
    settings: Settings, database: Database
) -> None:
    async with open_relay(settings) as relay:
        await factories.user_without_grant(relay, "name-canary")
    keys = await make_keys(database)
    device = await device_token(database, "name-canary")
    record = fhir_resource(id="id-canary", note=[{"text": "text-canary"}])
    labels = {"user": "name-canary", "source": "source-canary", "recordId": "record-canary"}
    port = _free_port()
    async with (
        _process(_environment(settings, port)) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        await _until_ready(client, process)
        statuses = set()
        for secret in (keys.backend, keys.operator, device, "key-canary"):
            client.headers = httpx.Headers(bearer(secret))
            for request in (
                client.build_request(
                    "POST", "/v1/uploads", json={**labels, "fhirVersion": "R4", "resource": record}
                ),
                client.build_request(
                    "POST", "/v1/uploads", params={**labels, "fhirVersion": "R4"}, json=record
                ),
                client.build_request("POST", "/v1/uploads", content=b'{"text-canary'),
                client.build_request("GET", "/v1/uploads", params={"user": "name-canary"}),
                client.build_request("GET", "/v1/uploads", params={"status": "query-canary"}),
                client.build_request("GET", f"/v1/uploads/{NOBODYS_ID}"),
                client.build_request("GET", "/v1/path-canary"),
                client.build_request("GET", "/v1/users/name-canary"),
                client.build_request("POST", "/v1/users", json={"appUserId": "new-canary"}),
                client.build_request("POST", "/v1/users", json={"appUserId": "\x00canary"}),
                client.build_request(
                    "PUT",
                    "/v1/users/name-canary/grant",
                    json={"accessToken": "token-canary", "expiresIn": 60},
                ),
                client.build_request(
                    "POST", "/v1/users/name-canary/device-tokens", json={"expiresIn": 60}
                ),
            ):
                statuses.add((await client.send(request)).status_code)
        with socket.create_connection(("127.0.0.1", port)) as broken:
            broken.sendall(b"GET /v1/canary HTTP/1.1\r\nHost: x\r\nX canary\r\n\r\n")
            broken.recv(1000)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            output, _ = await process.communicate()
    # 503: 1upHealth refused the client secret, which writes a log line of its own.
    assert statuses == {200, 201, 202, 400, 401, 403, 404, 415, 503}
    shown = output.decode()
    assert "Started server process" in shown  # the log is there
    assert all(orjson.loads(line)["event"] for line in shown.splitlines())
    for secret in ("canary", keys.backend, keys.operator, device, "obs-1", "hospital"):
        assert secret not in shown
    for setting in (settings.database_url, settings.redis_url, settings.master_keys):
        assert setting is not None
        assert setting.get_secret_value() not in shown


@pytest.mark.parametrize("name", ["UPLIFT_MASTER_KEYS", "UPLIFT_DATABASE_URL", "UPLIFT_REDIS_URL"])
async def test_a_missing_setting_is_named_in_one_line_and_nothing_is_served(
    settings: Settings, name: str
) -> None:
    environment = _environment(settings, _free_port())
    del environment[name]
    async with _process(environment) as process:
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
        assert process.returncode == 1
    lines = output.decode().splitlines()
    assert len(lines) == 1
    assert name in lines[0]
    assert "uplift" in lines[0]


async def test_a_stop_answers_long_polls_and_then_ends_the_process(
    settings: Settings, database: Database
) -> None:
    async with open_relay(settings) as relay:
        await factories.user_without_grant(relay)
        accepted = await factories.accepted(relay)
    keys = await make_keys(database)
    port = _free_port()
    async with (
        _process(_environment(settings, port)) as process,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=bearer(keys.backend), trust_env=False
        ) as client,
    ):
        await _until_ready(client, process)
        url = f"/v1/uploads/{accepted.upload.id}"
        polling = asyncio.create_task(client.get(url, params={"wait": 30}, timeout=40))
        # The other request comes back, so the long poll has arrived too.
        for _ in range(20):
            await client.get(url)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            output, _ = await process.communicate()
        answer = (await asyncio.gather(polling, return_exceptions=True))[0]
    assert process.returncode in (0, -signal.SIGTERM)
    assert isinstance(answer, httpx.Response)
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    events = [orjson.loads(line) for line in output.splitlines()]
    assert not [event for event in events if event["level"] == "error"]


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
async def test_without_file_descriptors_it_answers_503_and_recovers(
    settings: Settings, database: Database
) -> None:
    async with open_relay(settings) as relay:
        await factories.user_without_grant(relay)
    keys = await make_keys(database)
    port = _free_port()
    async with (
        _process(_environment(settings, port)) as process,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=bearer(keys.backend), trust_env=False
        ) as client,
    ):
        await _until_ready(client, process)
        limit = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, limit[1]))
        async with database.transaction() as connection:
            # Each connection to PostgreSQL must be opened again.
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
            )
        request = {"user": "alice", "fhirVersion": "R4", "source": "s", "resource": fhir_resource()}
        for _ in range(5):
            response = await client.post("/v1/uploads", json=request)
            assert response.status_code == 503, response.text
            assert response.headers["Retry-After"]
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limit)
        async with asyncio.timeout(15):
            while (await client.post("/v1/uploads", json=request)).status_code != 202:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_a_drain_refuses_no_connection_and_fails_no_request(
    settings: Settings, database: Database
) -> None:
    async with open_relay(settings) as relay:
        await factories.user_without_grant(relay)
    keys = await make_keys(database)
    port = _free_port()
    environment = _environment(settings, port) | {"UPLIFT_DRAIN_SECONDS": "2"}
    url = f"http://127.0.0.1:{port}"
    statuses: list[int] = []
    ended: list[float] = []

    async def send(sender: int) -> None:
        """Each request on a connection of its own, until there is nobody to connect to."""
        for number in range(10_000):
            async with httpx.AsyncClient(headers=bearer(keys.backend), trust_env=False) as client:
                record = fhir_resource(id=f"{sender}-{number}")
                request = {"user": "alice", "fhirVersion": "R4", "source": "s", "resource": record}
                try:
                    response = await client.post(f"{url}/v1/uploads", json=request)
                except httpx.TransportError:  # nobody listens any more
                    ended.append(time.monotonic())
                    return
                statuses.append(response.status_code)

    async with (
        _process(environment) as process,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        await _until_ready(client, process)
        senders = [asyncio.create_task(send(sender)) for sender in range(4)]
        while len(statuses) < 20:  # noqa: ASYNC110  until they are under way
            await asyncio.sleep(0.01)
        stopped = time.monotonic()
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)  # a signal
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "stopping")
        assert (await client.get("/healthz")).status_code == 200
        await asyncio.gather(*senders)
        await process.wait()
    assert set(statuses) == {202}
    assert min(ended) - stopped >= 2
