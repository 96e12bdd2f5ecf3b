"""Uplift as pip installs it: complete, one top-level package, and deaf to the current folder."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
# In the repository these are links to folders at its top. Only readers of the source need README.
LINKS = {"uplift/api", "uplift/worker"}
NOT_SHIPPED = {"uplift/sandbox/export/README.md"}
SHADOW = 'raise SystemExit("imported from the current folder")\n'


def build(kind: str, source: Path, to: Path) -> Path:
    """Build offline what pip would. Returns the only new file in `to`."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", to],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [built] = to.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def tracked(*folders: str) -> set[str]:
    done = subprocess.run(
        ["/usr/bin/env", "git", "ls-files", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


def expected_files() -> set[str]:
    """Every file of the source, where an installation has it."""
    own = tracked("uplift") - LINKS - NOT_SHIPPED
    return own | {f"uplift/{name}" for name in tracked("api", "worker")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of what is needed to build: setuptools writes beside it."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("uplift", "api", "worker"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    (copy / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "errors.md", copy / "docs")  # a link in api/ leads there
    return copy


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, so that this is complete as well."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    return build("wheel", unpacked, folder)


@pytest.fixture(scope="module")
def uplift(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a fresh environment with the wheel and the dependencies of this one."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)  # noqa: S202
    # A path in a .pth file is only added: the editable install's own .pth files stay unread.
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    command = home / "bin" / "uplift"
    command.write_text(
        f"#!{home}/bin/python\nimport sys\nfrom uplift.cli.main import app\nsys.exit(app())\n"
    )
    command.chmod(0o755)
    return command


def run(command: Path, *words: str, cwd: Path, **environment: str) -> tuple[int, str]:
    bare = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("UPLIFT_", "PYTHON", "COVERAGE"))
    }
    done = subprocess.run(
        [command, *words],
        cwd=cwd,
        env={**bare, "UPLIFT_DATA_DIR": str(cwd / "data"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_the_wheel_has_every_file_and_one_top_level_package(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"uplift"}
    assert names == expected_files()


def test_the_wheel_has_its_command_license_types_and_addresses(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith("METADATA")]
        text = archive.read(metadata).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
        [entries] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "uplift = uplift.cli.main:app" in archive.read(entries).decode()
    for line in (
        "Name: uplift-relay",
        "License-Expression: Apache-2.0",
        "Classifier: Typing :: Typed",
    ):
        assert f"\n{line}\n" in text
    for label in ("Homepage", "Documentation", "Issues"):
        assert f"\nProject-URL: {label}, https://" in text


def test_the_source_distribution_holds_files_in_place_of_links(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = {each.name.partition("/")[2] for each in members if each.isfile()}
    assert not [each.name for each in members if each.issym() or each.islnk()]
    assert expected_files() | {"LICENSE", "README.md", "pyproject.toml"} <= names
    assert not [name for name in names if name.startswith("tests/")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with packages of the same names as ours."""
    for name in ("api", "worker", "uplift", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(SHADOW)
    return tmp_path


def test_the_installed_commands_work_in_any_folder(folder: Path, uplift: Path) -> None:
    code, said = run(uplift, "--version", cwd=folder)
    assert (code, said) == (0, "uplift 0.2.0\n")
    code, said = run(uplift, "--help", cwd=folder)
    assert code == 0
    assert "Usage: uplift" in said
    code, said = run(uplift, "sandbox", "--help", cwd=folder)
    assert (code, "--quota-calls" in said) == (0, True)
    code, said = run(uplift, "example-export", "export.zip", cwd=folder)
    assert code == 0, said
    assert (folder / "export.zip").stat().st_size > 100_000
    code, said = run(uplift, "users", "list", cwd=folder)
    assert (code, "UPLIFT_DATABASE_URL is not set" in said) == (2, True), said


@pytest.mark.parametrize("process", ["api", "worker"])
def test_an_installed_process_names_the_missing_setting(
    process: str, uplift: Path, tmp_path: Path
) -> None:
    for name in ("api", "worker"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(SHADOW)
    code, said = run(uplift, process, cwd=tmp_path)
    assert code == 1, said
    assert re.search(r"(UPLIFT_\w+ is not set|FLOWER_BASIC_AUTH: set it)", said), said
    assert "Traceback" not in said
