"""Procfile, docker-compose.yml and Dockerfile say what `uplift up` does, and leak nothing."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from honcho.environ import parse_procfile

from uplift.cli.local.system import ADMIN_PORTS, PROCESSES, command
from uplift.cli.pages.settings import example

ROOT = Path(__file__).parents[4]
PROCFILE = (ROOT / "Procfile").read_text()
COMPOSE_FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

BIN = Path(sys.executable).parent

# Interpolations as Compose and the shell write them: ${NAME}, ${NAME:-default}, ${NAME:?message}.
INTERPOLATION = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<rest>[^}]*)\}")
SECRET = re.compile(r"PASSWORD|SECRET|KEYS|AUTH")


def procfile_command(name: str) -> str:
    """The command, without what must hold before it (`… &&`)."""
    return str(parse_procfile(PROCFILE).processes[name].rsplit("&& ", 1)[-1])


def procfile_words(name: str) -> list[str]:
    """The command as the shell would start it, without its admin port and `exec`."""
    return shlex.split(re.sub(r"^(\w+=\S+ )?exec ", "", procfile_command(name)))


def ours() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in SERVICES.items() if "build" in service}


@pytest.mark.parametrize("name", PROCESSES)
def test_procfile_and_compose_start_each_process_by_its_console_command(name: str) -> None:
    assert procfile_words(name) == ["uplift", name]
    words = SERVICES[name]["command"]
    # In a container, Flower must listen on more than loopback.
    assert [word for word in words if not word.startswith("--")] == ["uplift", name]


def test_the_procfile_has_these_processes_and_no_others() -> None:
    # `honcho start` runs all of them, and ends when one does: nothing here may end by itself.
    assert set(parse_procfile(PROCFILE).processes) == set(PROCESSES)


def test_the_procfile_gives_each_process_the_admin_port_of_uplift_up() -> None:
    for name in PROCESSES:
        found = re.match(r"UPLIFT_ADMIN_PORT=(\d+) ", procfile_command(name))
        assert (int(found[1]) if found else None) == ADMIN_PORTS.get(name)


def test_compose_has_these_services_and_no_others() -> None:
    assert set(ours()) == {"migrate", *PROCESSES}
    assert set(SERVICES) == {"postgres", "redis", *ours()}


def test_every_command_names_a_program_that_is_installed() -> None:
    commands = [procfile_words(name) for name in parse_procfile(PROCFILE).processes]
    commands += [service["command"] for service in ours().values()]
    for words in commands:
        assert shutil.which(words[0], path=str(BIN)), words


def test_honcho_runs_the_procfile() -> None:
    done = subprocess.run([BIN / "honcho", "check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_flower_itself_does_not_start_without_a_login() -> None:
    done = subprocess.run(
        command("flower"),
        env={"UPLIFT_REDIS_URL": "redis://127.0.0.1:1/0", "FLOWER_BASIC_AUTH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "FLOWER_BASIC_AUTH: set it to user:password" in done.stderr


@pytest.mark.parametrize(
    "text", [PROCFILE, COMPOSE_FILE.read_text(), DOCKERFILE], ids=["Procfile", "compose", "image"]
)
def test_no_secret_has_a_default(text: str) -> None:
    for found in INTERPOLATION.finditer(text):
        if SECRET.search(found["name"]):
            assert found["rest"].startswith(":?"), f"{found[0]} must be required"


def test_secrets_are_never_written_out() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                # An empty one takes from a container what .env would give to all.
                assert value == "" or INTERPOLATION.fullmatch(value), (name, variable)


def test_a_login_or_password_is_given_only_to_the_container_that_needs_it() -> None:
    given = {
        (name, variable)
        for name, service in ours().items()
        for variable in ("FLOWER_BASIC_AUTH", "POSTGRES_PASSWORD", "REDIS_PASSWORD")
        if service["environment"][variable] != ""
    }
    assert given == {("flower", "FLOWER_BASIC_AUTH")}


def test_what_the_files_ask_for_is_in_the_example_of_the_environment() -> None:
    documented = set(re.findall(r"^(\w+)=", example(), re.MULTILINE))
    asked = {found["name"] for found in INTERPOLATION.finditer(COMPOSE_FILE.read_text())}
    assert asked
    assert asked <= documented


def test_ports_are_published_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api", "flower"}
    for ports in published.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)


def test_images_have_a_version() -> None:
    images = [SERVICES[name]["image"] for name in ("postgres", "redis")]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    for image in images:
        assert re.search(r":\d+", image), image


def test_our_containers_wait_for_the_migration() -> None:
    for name, service in ours().items():
        if name == "migrate":
            assert service["depends_on"] == {"postgres": {"condition": "service_healthy"}}
        else:
            wait = service["depends_on"]["migrate"]["condition"]
            assert wait == "service_completed_successfully", name


def test_every_service_that_stays_up_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        if name != "migrate":
            assert service["healthcheck"]["test"], name
    assert "\nHEALTHCHECK " in DOCKERFILE


def test_workers_are_checked_at_their_admin_port_which_is_not_published() -> None:
    checks = [SERVICES[name]["healthcheck"] for name in ("worker", "bulk", "beat")]
    for name, check in zip(("worker", "bulk", "beat"), checks, strict=True):
        port = SERVICES[name]["environment"]["UPLIFT_ADMIN_PORT"]
        assert f"http://127.0.0.1:{port}/healthz" in check["test"][-1]
        assert check == checks[0]
        assert "ports" not in SERVICES[name]
        # It asks the loop, and then Redis, for some seconds each.
        assert int(check["timeout"].removesuffix("s")) > 10


def test_redis_keeps_its_queue() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert INTERPOLATION.fullmatch(options.pop("--requirepass"))
    assert command[0] == "redis-server"
    assert options == {
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
    }


def test_the_image_does_not_run_as_root_and_installs_by_hash() -> None:
    final = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER (?!root|0)\w+$", final, re.MULTILINE)
    for line in re.findall(r"pip install .*", DOCKERFILE):
        assert "--require-hashes" in line or ("--no-deps" in line and "--no-index" in line), line
    assert json.loads(final.rsplit("\nCMD ", 1)[1]) == ["uplift", "api"]


def test_the_lock_gives_the_image_its_build_backend(tmp_path: Path) -> None:
    awk = re.search(r"RUN (awk '.*' requirements-dev\.lock)", DOCKERFILE)
    assert awk is not None
    done = subprocess.run(
        ["/bin/sh", "-euc", awk[1]], cwd=ROOT, check=True, capture_output=True, text=True
    )
    name, *hashes = done.stdout.replace("\\\n", "").split()
    assert name.startswith("setuptools==")
    assert hashes
    assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes)
