"""What systemd itself says to ops/systemd."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ops.units import INSTALLED, PROGRAMS, SERVICES, UNITS

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")


def installed(folder: Path) -> list[Path]:
    """The units in a folder, with the programs of this environment."""
    shutil.copytree(UNITS, folder)
    for file in folder.glob("*.service"):
        file.write_text(file.read_text().replace(INSTALLED, f"{PROGRAMS}/"))
    return [folder / "uplift.target", *(folder / file.name for file in SERVICES.values())]


def analyze(folder: Path, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *words],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
        capture_output=True,
        text=True,
    )


def test_systemd_finds_nothing_wrong_in_the_units(tmp_path: Path) -> None:
    units = installed(tmp_path / "units")
    done = analyze(tmp_path / "units", "verify", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_reads_what_all_units_share(tmp_path: Path) -> None:
    units = installed(tmp_path / "units")
    with (tmp_path / "units" / "uplift-.service.d" / "common.conf").open("a") as common:
        common.write("NoSuchOption=yes\n")
    done = analyze(tmp_path / "units", "verify", "--man=no", *units)
    assert "NoSuchOption" in done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_is_well_confined(tmp_path: Path, name: str) -> None:
    installed(tmp_path / "units")
    unit = tmp_path / "units" / SERVICES[name].name
    done = analyze(tmp_path / "units", "security", "--offline=yes", "--threshold=20", unit)
    assert done.returncode == 0, done.stdout + done.stderr
