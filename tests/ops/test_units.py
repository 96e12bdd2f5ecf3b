"""ops/systemd: each unit gets what it needs, and they run a whole system.

tests/wide/test_systemd.py lets systemd itself read them.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from tests.factories import resource
from tests.ops.units import CREDENTIALS, PROGRAMS, SERVICES, UNITS, Machine, read_unit
from uplift.cli.local.embedded import EmbeddedPostgres
from uplift.cli.local.needs import NEEDS, SECRETS
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.system import ADMIN_PORTS, CLAIMING, PROCESSES
from uplift.ledger.database import Database
from uplift.settings import Settings, secrets

SECONDS = 60
OPERATOR = dotenv_values(UNITS / "operator.env")


def service(name: str) -> dict[str, list[str]]:
    return read_unit(SERVICES[name])["Service"]


def test_there_is_a_unit_for_each_process_and_the_target_starts_them() -> None:
    assert set(SERVICES) == {*PROCESSES, "migrate"}
    (wanted,) = read_unit(UNITS / "uplift.target")["Unit"]["Wants"]
    assert wanted.split() == [f"uplift-{name}.service" for name in PROCESSES]


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_runs_its_command_at_the_admin_port_of_the_procfile(name: str) -> None:
    (line,) = service(name)["ExecStart"]
    port = ADMIN_PORTS.get(name)
    named = " UPLIFT_PROCESS_ID=${INVOCATION_ID}" if name in CLAIMING else ""
    before = f"/usr/bin/env UPLIFT_ADMIN_PORT={port}{named} " if port else ""
    assert line == f"{before}/opt/uplift/bin/uplift {name}"


@pytest.mark.parametrize("name", PROCESSES)
def test_systemd_tells_the_ledger_that_a_process_that_claims_has_ended(name: str) -> None:
    told = ["-/opt/uplift/bin/uplift process-ended ${INVOCATION_ID}"]
    assert service(name).get("ExecStopPost", []) == (told if name in CLAIMING else [])


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_gets_the_secrets_that_it_needs_as_credentials(name: str) -> None:
    loaded = dict(each.split(":") for each in service(name)["LoadCredential"])
    assert {f"{CREDENTIALS}{each}" for each in loaded} == set(loaded.values())
    files = dict(each.split("=") for each in service(name)["Environment"])
    assert set(files) == {f"{secret}_FILE" for secret in NEEDS[name]}
    assert set(files.values()) == {f"%d/{credential}" for credential in loaded}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_that_ends_is_started_again_and_waits_for_the_schema(name: str) -> None:
    assert service(name)["Restart"] == ["always"]
    unit = read_unit(SERVICES[name])["Unit"]
    # Not Requires=: a process whose dependency failed is not started again.
    assert unit["Wants"] == unit["After"] == ["uplift-migrate.service"]


def test_attempts_under_way_may_finish() -> None:
    for name in ("worker", "bulk", "beat"):
        assert int(service(name)["TimeoutStopSec"][0]) > Settings().attempt_seconds


def test_an_operator_s_commands_have_every_secret() -> None:
    assert set(OPERATOR) == {f"{name}_FILE" for name in NEEDS["api"] | NEEDS["migrate"]}


def made_secrets(folder: Path, settings: Settings) -> None:
    """What ops/make-secrets.sh makes, with the addresses and keys of this test."""
    subprocess.run(
        ["/bin/sh", UNITS.parent / "make-secrets.sh", folder, HOST, HOST],
        check=True,
        capture_output=True,
    )
    for name in secrets():
        if (secret := getattr(settings, name)) is None:
            continue
        value = secret.get_secret_value()
        file = folder / name
        file.unlink()
        file.write_text(f"{value}\n")


@pytest.fixture
def machine(
    database: Database, postgres: EmbeddedPostgres, settings: Settings, tmp_path: Path
) -> Machine:
    """A machine whose settings are those of the test, and whose ports are free."""
    chosen = {
        "UPLIFT_ADMIN_PORT": "",  # as in .env.example
        "UPLIFT_API_PORT": str(free_port()),
        "FLOWER_PORT": str(free_port()),
        "UPLIFT_ONEUP_FHIR_URL": settings.oneup_fhir_url,
        "UPLIFT_ONEUP_TOKEN_URL": settings.oneup_token_url,
        "UPLIFT_ONEUP_USERS_URL": settings.oneup_users_url,
        "UPLIFT_ONEUP_CLIENT_ID": settings.oneup_client_id,
    }
    ports = {
        f"UPLIFT_ADMIN_PORT={port}": f"UPLIFT_ADMIN_PORT={free_port()}"
        for port in ADMIN_PORTS.values()
    }
    owner = {"migration_database_url": SecretStr(postgres.owner_url)}
    made_secrets(tmp_path / "credentials", settings.model_copy(update=owner))
    return Machine(tmp_path, chosen, ports)


@pytest.fixture
def units(machine: Machine) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """All units, migrated before."""
    assert machine.start("migrate").wait(SECONDS) == 0, machine.log("migrate")
    with ExitStack() as stack:
        started = {}
        for name in PROCESSES:
            started[name] = stack.enter_context(machine.start(name))
            stack.callback(started[name].kill)
        yield started


async def until(machine: Machine, url: str, status: int) -> None:
    deadline = time.monotonic() + SECONDS
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            assert time.monotonic() < deadline, [machine.log(name) for name in PROCESSES]
            try:
                if (await client.get(url)).status_code == status:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


def as_operator(machine: Machine, *words: str) -> str:
    """A command, as docs/operations.md says to type it."""
    files = {
        name: str(machine.credentials / Path(value or "").name) for name, value in OPERATOR.items()
    }
    done = subprocess.run(
        [PROGRAMS / "uplift", *words],
        env={"PATH": os.defpath, **machine.settings, **files},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_shows_no_secret(name: str, pid: int, credentials: Path) -> None:
    shown = "".join(Path(f"/proc/{pid}/{file}").read_text() for file in ("environ", "cmdline"))
    assert not [file.name for file in credentials.iterdir() if file.read_text().strip() in shown]
    assert not [secret for secret in SECRETS if f"\0{secret}=" in shown], name


async def test_the_units_deliver_and_end_cleanly_and_no_secret_is_in_an_environment(
    machine: Machine, units: dict[str, "subprocess.Popen[bytes]"]
) -> None:
    api = f"http://{HOST}:{machine.settings['UPLIFT_API_PORT']}"
    await until(machine, f"{api}/readyz", 200)
    await until(machine, f"http://{HOST}:{machine.settings['FLOWER_PORT']}/", 401)
    key = await asyncio.to_thread(as_operator, machine, "keys", "add", "test")
    async with httpx.AsyncClient(
        base_url=api,
        headers={"Authorization": f"Bearer {key.split()[0]}"},
        trust_env=False,
        timeout=60,
    ) as client:
        (await client.post("/v1/users", json={"appUserId": "alice"})).raise_for_status()
        sent = await client.post(
            "/v1/uploads", params={"user": "alice", "fhirVersion": "R4"}, json=resource()
        )
        settled = await client.get(sent.headers["Location"], params={"wait": 30})
    assert settled.json()["status"] == "delivered"

    if sys.platform == "linux":
        for name, process in units.items():
            assert_shows_no_secret(name, process.pid, machine.credentials)

    for process in units.values():
        process.send_signal(signal.SIGTERM)
    for name, process in units.items():
        # systemd takes the end by SIGTERM for a clean one, too.
        ended = await asyncio.to_thread(process.wait, SECONDS)
        assert ended in (0, -signal.SIGTERM), machine.log(name)
        assert "Traceback" not in machine.log(name)
