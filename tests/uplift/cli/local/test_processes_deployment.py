"""Procfile and Dockerfile say what `uplift up` does, and leak nothing."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from honcho.environ import parse_procfile

from uplift.cli.local.system import ADMIN_PORTS, PROCESSES, command

ROOT = Path(__file__).parents[4]
PROCFILE = (ROOT / "Procfile").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()

BIN = Path(sys.executable).parent


def procfile_command(name: str) -> str:
    return str(parse_procfile(PROCFILE).processes[name])


def procfile_words(name: str) -> list[str]:
    """The command as the shell would start it, without its admin port and `exec`."""
    return shlex.split(re.sub(r"^(\w+=\S+ )?exec ", "", procfile_command(name)))


@pytest.mark.parametrize("name", PROCESSES)
def test_the_procfile_starts_each_process_by_its_console_command(name: str) -> None:
    assert procfile_words(name) == ["uplift", name]


def test_the_procfile_has_these_processes_and_no_others() -> None:
    # `honcho start` runs all of them, and ends when one does: nothing here may end by itself.
    assert set(parse_procfile(PROCFILE).processes) == set(PROCESSES)


def test_the_procfile_gives_each_process_the_admin_port_of_uplift_up() -> None:
    for name in PROCESSES:
        found = re.match(r"UPLIFT_ADMIN_PORT=(\d+) ", procfile_command(name))
        assert (int(found[1]) if found else None) == ADMIN_PORTS.get(name)


def test_every_command_names_a_program_that_is_installed() -> None:
    commands = [procfile_words(name) for name in parse_procfile(PROCFILE).processes]
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


def test_images_have_a_version() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert images
    for image in images:
        assert re.search(r":\d+", image), image


def test_the_image_checks_its_health() -> None:
    assert "\nHEALTHCHECK " in DOCKERFILE


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
