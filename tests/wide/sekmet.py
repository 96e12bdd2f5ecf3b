"""Runs sekmet-fhir of `make tools`: a FHIR R4 server that validates strictly."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from tests.wide.programs import TOOLS
from uplift.cli.local.ports import HOST, free_port

# It does not decode what RFC 6749 has a client encode, so nothing needs encoding here.
CLIENT_ID, SECRET = "uplift", "secret-of-this-test"
_START_SECONDS = 60


@dataclass(frozen=True)
class Sekmet:
    """The running server. `base` is of R4; `pid` is 0 until it runs."""

    url: str
    pid: int = 0

    @property
    def base(self) -> str:
        return f"{self.url}/fhir"

    @property
    def token_url(self) -> str:
        return f"{self.url}/auth/token"

    def headers(self) -> dict[str, str]:
        """A login by the secret, for the test itself."""
        form = {"grant_type": "client_credentials"}
        answer = httpx.post(self.token_url, data=form, auth=(CLIENT_ID, SECRET), trust_env=False)
        return {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}


def sekmet_to_be() -> Sekmet:
    """Where a server will be: what it must know may be there first."""
    return Sekmet(f"http://{HOST}:{free_port()}")


@contextmanager
def run_sekmet(
    folder: Path, server: Sekmet | None = None, *, token_seconds: int = 3600, **client: Any
) -> Iterator[Sekmet]:
    """An empty server for one `with` block, which wants a login by client_credentials.

    `client` is what it knows of Uplift beside the secret: `jwks` or `jwks_url`.
    """
    server = server or sekmet_to_be()
    known = {"client_id": CLIENT_ID, "client_secret": SECRET, "scopes": "system/*.*", **client}
    settings = {
        "base_url": server.base,
        "host": HOST,
        "port": httpx.URL(server.url).port,
        "data_dir": str(folder / "data"),
        "server_auth": {
            "types": ["smart"],
            "smart_clients": [known],
            "token_lifetime": token_seconds,
        },
        # It would answer orders with resources of its own.
        "simulator": {"enabled": False},
    }
    config = folder / "settings.yaml"
    config.write_text(json.dumps(settings))  # JSON is YAML
    with (folder / "sekmet.log").open("wb") as log:
        process = subprocess.Popen(
            [TOOLS / "sekmet", "serve", "--config", config],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _await(server, process, folder / "sekmet.log")
        yield replace(server, pid=process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _await(server: Sekmet, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + _START_SECONDS
    while True:
        try:
            if httpx.get(f"{server.base}/metadata", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        said = log.read_text(errors="replace")[-2000:]
        assert process.poll() is None, said
        assert time.monotonic() < ends, said
        time.sleep(0.2)
