"""Programs of other people that tests run: of `make tools` and npm, and other Pythons."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-tools" / "bin"
NPM = Path(__file__).parent / "npm"

# What `requires-python` and CONTRIBUTING promise.
PYTHONS = ("3.11", "3.12", "3.13")


def find_python(version: str) -> Path | None:
    """That Python, from the PATH or from pyenv, or None."""
    name = f"python{version}"
    on_path = shutil.which(name)
    of_pyenv = (Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/{name}")
    candidates: list[Path] = [Path(on_path)] if on_path else []
    for found in candidates + sorted(of_pyenv):
        # pyenv puts a script under each name on the PATH; most of them only say what to select.
        if subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
            return found
    return None


def is_this_python(version: str) -> bool:
    """Whether this very test runs on that Python."""
    return version == "{}.{}".format(*sys.version_info)


@cache
def npm_tools() -> None:
    """Install what tests/wide/npm pins. Skips the test if there is no npm."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not here")
    done = subprocess.run(["npm", "ci"], cwd=NPM, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@cache
def maven_jar(coordinates: str) -> Path:
    """A jar by `group:artifact:version`. Skips the test if there is no Java or no Maven."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    _, artifact, version = coordinates.split(":")
    folder = ROOT / ".venv-tools" / "jars"
    jar = folder / f"{artifact}-{version}.jar"
    if not jar.exists():
        done = subprocess.run(
            [
                "mvn",
                *("--quiet", "--batch-mode", "dependency:copy"),
                f"-Dartifact={coordinates}",
                f"-DoutputDirectory={folder}",
            ],
            cwd=folder.parent,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return jar
