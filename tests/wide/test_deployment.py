"""A deployment by docs/operations.md: Debian's PostgreSQL, Redis and nginx, and the units.

The page's own commands run, with other folders and free ports. systemd does not run here: a small
runner starts the units (tests/ops/units.py), and Uplift is the one of this environment.
"""

import os
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from dotenv import dotenv_values

from tests.ops.units import PROGRAMS, Machine
from tests.wide.programs import ROOT
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.system import ADMIN_PORTS, PROCESSES
from uplift.sandbox.export.make_export import write_export

_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
_MISSING = [name for name in ("redis-server", "nginx", "openssl") if shutil.which(name) is None]

pytestmark = [
    pytest.mark.skipif(not _POSTGRES, reason="Debian's PostgreSQL is not here"),
    pytest.mark.skipif(bool(_MISSING), reason=f"{', '.join(_MISSING)} is not here"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root deploys as the page says"),
    pytest.mark.timeout(600),
]

_SECONDS = 120

# What the machine of this test has already, or has no systemd for.
_DONE = ("apt-get install", "python3 -m venv /opt/uplift", "/opt/uplift/bin/pip", "systemctl")


def page_blocks() -> list[str]:
    """The commands of the page's section on systemd, block by block."""
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("### With systemd\n")[2].partition("\n### ")[0]
    return re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


class Place:
    """Folders and ports in place of the machine's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ("postgres", "redis", "api", "flower", "tls")}
        self.ports["sandbox"] = free_port()
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PGHOST": str(folder / "postgres_socket"),
            "PGPORT": str(self.ports["postgres"]),
        }

    def here(self, text: str) -> str:
        """A text of the page, or a file of ops, with what is here."""
        for name, replacement in {
            "/etc/uplift": self.folder,
            "/etc/redis": self.folder,
            "/etc/systemd/system": self.folder / "units",
            "/opt/uplift/bin": PROGRAMS,
        }.items():
            text = text.replace(name, str(replacement))
        return text

    def run(self, script: str, **more: str) -> str:
        """Run commands of the page, which must succeed."""
        done = subprocess.run(
            ["/bin/sh", "-ec", self.here(script)],
            cwd=ROOT,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, script + done.stdout + done.stderr
        return done.stdout

    def replace(self, name: str, old: str, new: str) -> None:
        """Change a file that is there."""
        file = self.folder / name
        text = file.read_text()
        assert old in text, file
        file.write_text(text.replace(old, new))

    @contextmanager
    def running(
        self,
        name: str,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Iterator[None]:
        """Within, a program runs."""
        with (self.folder / f"{name}.output").open("wb") as output:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env={**self.environment, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=user,
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def until(answers: Callable[[], object], what: str) -> None:
    """Wait until a call does not fail."""
    ends = time.monotonic() + _SECONDS
    while True:
        with suppress(httpx.HTTPError, psycopg.Error, AssertionError):
            answers()
            return
        assert time.monotonic() < ends, what
        time.sleep(0.2)


@pytest.fixture
def place() -> Iterator[Place]:
    """An empty place that the account of PostgreSQL can enter."""
    with tempfile.TemporaryDirectory(prefix="uplift-deployment-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "units").mkdir()
        yield Place(folder)


@contextmanager
def postgres(place: Place) -> Iterator[None]:
    """Debian's PostgreSQL, with a cluster of its own."""
    programs = _POSTGRES[-1].parent
    for name in ("postgres_data", "postgres_socket"):
        (place.folder / name).mkdir()
        shutil.chown(place.folder / name, "postgres", "postgres")
    as_postgres = ("runuser", "-u", "postgres", "--")
    data = place.folder / "postgres_data"
    initdb: list[str | Path] = [
        programs / "initdb",
        "-D",
        data,
        "--auth-local=peer",
        "--auth-host=scram-sha-256",
    ]
    subprocess.run([*as_postgres, *initdb], check=True, capture_output=True, cwd="/")
    words: list[str | Path] = ["-D", data, "-p", str(place.ports["postgres"]), "-h", HOST]
    socket = place.folder / "postgres_socket"
    words += ["-k", str(socket)]
    with place.running("postgres", programs / "postgres", *words, user="postgres"):
        until(lambda: place.run("runuser -u postgres -- psql -c 'SELECT 1'"), "PostgreSQL")
        yield


@contextmanager
def nginx(place: Place) -> Iterator[str]:
    """Debian's nginx with ops/proxy/nginx.conf and a certificate of our own; its address."""
    folder = place.folder
    place.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
        f" -addext subjectAltName=DNS:localhost -keyout {folder}/tls.key -out {folder}/tls.pem"
    )
    text = (ROOT / "ops" / "proxy" / "nginx.conf").read_text()
    for old, new in {
        "listen 443 ssl;": f"listen {HOST}:{place.ports['tls']} ssl;",
        "uplift.example.com": "localhost",
        "/etc/ssl/uplift": f"{folder}/tls",
        "127.0.0.1:8080": f"{HOST}:{place.ports['api']}",
        # As the page says: systemd's services cannot open the others.
        "/dev/stdout": f"{folder}/nginx_access.log",
        "/dev/stderr": f"{folder}/nginx_error.log",
    }.items():
        assert old in text
        text = text.replace(old, new)
    file = folder / "nginx.conf"
    file.write_text(f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n{text}")
    with place.running("nginx", "nginx", "-c", file, "-p", folder):
        yield f"https://localhost:{place.ports['tls']}"


def install(place: Place, block: str) -> None:
    """The page's first block: secrets, roles, Redis' configuration, units."""
    (place.folder / "redis.conf").write_text(
        f"port {place.ports['redis']}\nbind {HOST}\ndir {place.folder}\n"
    )
    commands = [line for line in block.splitlines() if line and not line.startswith(_DONE)]
    assert len(commands) == 7, commands
    for line in commands:
        place.run(line)
    for name in ("database_url", "migration_database_url", "reader_database_url"):
        place.replace(f"credentials/{name}", ":5432/", f":{place.ports['postgres']}/")
    place.replace("credentials/redis_url", ":6379/", f":{place.ports['redis']}/")
    place.replace("operator.env", "/etc/uplift", str(place.folder))
    trial = (ROOT / "ops" / "compose" / "sandbox.env").read_text()
    own = {"UPLIFT_API_PORT": place.ports["api"], "FLOWER_PORT": place.ports["flower"]}
    with (place.folder / "uplift.env").open("a") as settings:
        settings.write(trial.replace("sandbox:8090", f"{HOST}:{place.ports['sandbox']}"))
        settings.writelines(f"{name}={value}\n" for name, value in own.items())


@contextmanager
def units(place: Place) -> Iterator[Machine]:
    """All units, the migration first."""
    settings = dotenv_values(place.folder / "uplift.env")
    ports = {
        f"UPLIFT_ADMIN_PORT={port}": f"UPLIFT_ADMIN_PORT={free_port()}"
        for port in ADMIN_PORTS.values()
    }
    machine = Machine(place.folder, {name: value or "" for name, value in settings.items()}, ports)
    assert machine.start("migrate").wait(_SECONDS) == 0, machine.log("migrate")
    with ExitStack() as stack:
        started = {name: stack.enter_context(machine.start(name)) for name in PROCESSES}
        try:
            yield machine
        finally:
            for process in started.values():
                process.terminate()
            for name, process in started.items():
                assert process.wait(_SECONDS) in (0, -signal.SIGTERM), machine.log(name)


def test_a_deployment_by_the_page_delivers_an_export(place: Place) -> None:
    first, _, as_operator = page_blocks()
    settings, *commands = as_operator.splitlines()
    assert commands == ["uplift doctor", "uplift keys add my-backend"]
    with ExitStack() as stack:
        stack.enter_context(postgres(place))
        install(place, first)
        redis = ("redis-server", place.folder / "redis.conf")
        stack.enter_context(place.running("redis", *redis))
        secret = str(place.folder / "credentials" / "oneup_client_secret")
        sandbox = (PROGRAMS / "uplift", "sandbox", "--port", str(place.ports["sandbox"]))
        stack.enter_context(
            place.running("sandbox", *sandbox, env={"SANDBOX_CLIENT_SECRET_FILE": secret})
        )
        machine = stack.enter_context(units(place))
        url = stack.enter_context(nginx(place))
        certificate = str(place.folder / "tls.pem")

        trusted = ssl.create_default_context(cafile=certificate)

        def ready() -> None:
            found = httpx.get(f"{url}/readyz", verify=trusted, trust_env=False)
            assert found.status_code == 200, found.text

        try:
            until(ready, "the API behind nginx")
        except AssertionError:
            pytest.fail("\n".join(machine.log(name)[-2000:] for name in PROCESSES))

        def operator(command: str, **more: str) -> str:
            return place.run(f"{settings}\n{command}", **more)

        key = operator("uplift keys add my-backend").split()[0]
        export = place.folder / "export.zip"
        operator(f"uplift example-export {export}")
        operator("uplift users add alice")
        pushed = subprocess.run(
            [PROGRAMS / "uplift", "push", export, "--user", "alice", "--key", key],
            env={"PATH": os.defpath, "UPLIFT_API_URL": url, "SSL_CERT_FILE": certificate},
            cwd=place.folder,
            capture_output=True,
            text=True,
        )
        # 1: some records of the example are broken on purpose, and are rejected.
        assert pushed.returncode == 1, pushed.stdout + pushed.stderr
        example = write_export(place.folder / "same.zip")
        (row,) = re.findall(r"^All +(\d+) +(\d+) +(\d+) +(\d+)", pushed.stdout, re.MULTILINE)
        delivered, rejected, skipped, total = map(int, row)
        assert rejected == len(example.broken)
        assert delivered == len(example.records) - rejected
        # The index lists a file that is not there.
        assert total == len(example.records) + skipped
        operator("uplift doctor")
        # The reading role: nothing but the ledger's address.
        file = str(place.folder / "credentials" / "reader_database_url")
        read = f"unset UPLIFT_DATABASE_URL_FILE; export UPLIFT_DATABASE_URL_FILE={file}"
        assert "This role may not write" in operator(f"{read}\nuplift doctor")
        assert "This role of PostgreSQL" in operator(
            f"{read}\nunset UPLIFT_MIGRATION_DATABASE_URL_FILE\nuplift migrate 2>&1 || true"
        )
        time.sleep(2)
        assert re.search(r"^\d+ seal", operator("uplift audit verify"), re.MULTILINE)
