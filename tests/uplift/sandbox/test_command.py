import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from uplift.cli.local.system import command
from uplift.sandbox.command import main
from uplift.sandbox.testing import SandboxControl


@contextmanager
def running(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    words = command("sandbox", "--port", "0", *options)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().rpartition(" ")[2].strip(), process
        finally:
            process.kill()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_address_serves_and_stops(stop: signal.Signals) -> None:
    with running("--ids", "assigned", "--token-seconds", "60") as (url, process):
        assert url.startswith("http://127.0.0.1:")
        assert process.stdout is not None
        said, _, token = process.stdout.readline().rpartition(" ")
        assert said == f"The token of {url}/_sandbox/ is"
        sandbox = SandboxControl(url, token.strip())
        assert sandbox.grant("alice")["expires_in"] == 60
        sandbox.close()
        process.send_signal(stop)
        assert process.wait(10) == 0


def test_a_service_account_is_made_for_who_has_none(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    options = ("--like", "hapi", "--auth", "jwt_bearer", "--service-account", str(file))
    with running(*options) as (url, _):
        account = json.loads(file.read_text())
        assert account["token_uri"] == f"{url}/oauth2/token"
        assert file.stat().st_mode & 0o777 == 0o600
    with running(*options):
        assert json.loads(file.read_text()) == account


def test_a_login_without_its_file_is_a_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--jwks", "--service-account"):
        login = "private_key_jwt" if option == "--jwks" else "jwt_bearer"
        for file in ([], [option, str(tmp_path / "none" / "file")]):
            with pytest.raises(SystemExit):
                main(["--like", "hapi", "--auth", login, *file])
            assert option in capsys.readouterr().err


def test_a_state_without_its_key_is_a_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", "0", "--state", str(tmp_path / "state")]) == 1
    assert "64 hexadecimal digits" in capsys.readouterr().err


def test_a_taken_port_is_a_clear_message(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
