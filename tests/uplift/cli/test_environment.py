"""The settings that `uplift up` leaves for other commands, and who may have written them."""

import os
from pathlib import Path

import pytest

from uplift.cli.environment import load_environment, write_environment
from uplift.cli.local.system import make_folder
from uplift.errors import UpliftError

SETTINGS = {"UPLIFT_API_URL": "http://127.0.0.1:8080", "FLOWER_PORT": "5555"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the settings of a system that runs."""
    for name in (*os.environ, *SETTINGS, "LD_PRELOAD", "PATH_OF_MINE"):
        if name.startswith(("UPLIFT_", "FLOWER_")) or name in ("LD_PRELOAD", "PATH_OF_MINE"):
            monkeypatch.setenv(name, "")  # so that it comes back after the test
            monkeypatch.delenv(name)
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("UPLIFT_DATA_DIR", str(folder))
    write_environment(folder, {**SETTINGS, "LD_PRELOAD": "evil.so", "PATH_OF_MINE": "x"})
    return folder


def test_only_our_own_names_are_taken_and_the_file_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_environment()
    assert {name: os.environ.get(name) for name in SETTINGS} == SETTINGS
    assert "LD_PRELOAD" not in os.environ
    assert "PATH_OF_MINE" not in os.environ
    assert capsys.readouterr().err == f"Settings of {folder / 'environment'}.\n"


@pytest.mark.parametrize("which", ["file", "folder"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_what_others_may_write_is_not_used_and_that_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], which: str, mode: int
) -> None:
    (folder if which == "folder" else folder / "environment").chmod(mode)
    load_environment()
    assert "UPLIFT_API_URL" not in os.environ
    assert "is not used" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: a file cannot be given away")
@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_belongs_to_another_account_is_not_used(
    folder: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    os.chown(folder if which == "folder" else folder / "environment", 12345, -1)
    load_environment()
    assert "UPLIFT_API_URL" not in os.environ
    assert "is not used" in capsys.readouterr().err


def test_a_link_or_a_pipe_in_its_place_is_not_followed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "environment"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    load_environment()
    file.unlink()
    os.mkfifo(file, mode=0o600)
    load_environment()
    assert "UPLIFT_API_URL" not in os.environ
    assert capsys.readouterr().err.count("is not used") == 2


def test_what_is_set_by_a_file_keeps_its_value(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_environment(folder, {"UPLIFT_MASTER_KEYS": "theirs", "UPLIFT_DATABASE_URL": "theirs"})
    monkeypatch.setenv("UPLIFT_MASTER_KEYS_FILE", "mine")
    load_environment()
    assert "UPLIFT_MASTER_KEYS" not in os.environ
    assert os.environ.pop("UPLIFT_DATABASE_URL") == "theirs"

    monkeypatch.setenv("UPLIFT_DATABASE_URL_FILE", "mine")
    load_environment()
    assert "UPLIFT_DATABASE_URL" not in os.environ


def test_no_file_is_no_word(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "environment").unlink()
    load_environment()
    assert capsys.readouterr().err == ""


def test_a_system_does_not_start_in_a_folder_that_others_may_write(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UpliftError, match="others may write there"):
        make_folder(folder)
