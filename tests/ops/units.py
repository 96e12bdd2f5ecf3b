"""Runs the units of ops/systemd where no systemd is: commands, environment and credentials.

What only systemd does is not here: accounts, limits, the order of starts, restarts.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from tests.ops.files import ROOT

UNITS = ROOT / "ops" / "systemd"
SERVICES = {
    file.stem.removeprefix("uplift-"): file for file in sorted(UNITS.glob("uplift-*.service"))
}
COMMON = UNITS / "uplift-.service.d" / "common.conf"
PROGRAMS = Path(sys.executable).parent
INSTALLED = "/opt/uplift/bin/"
CREDENTIALS = "/etc/uplift/credentials/"
SETTINGS = "/etc/uplift/uplift.env"


def read_unit(*files: Path) -> dict[str, dict[str, list[str]]]:
    """The sections of a unit with its drop-ins; each key has its values in their order."""
    unit: dict[str, dict[str, list[str]]] = {}
    for file in files:
        section: dict[str, list[str]] = {}
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = unit.setdefault(line.strip("[]"), {})
            elif line and not line.startswith("#"):
                key, _, value = line.partition("=")
                section.setdefault(key, []).append(value)
    return unit


class Machine:
    """A machine with credentials and settings, and with ports that are free in place of ours."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], ports: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.credentials = folder / "credentials"
        self.settings = dict(settings)
        self._ports = dict(ports or {})

    def start(self, name: str) -> "subprocess.Popen[bytes]":
        """Start a unit as systemd would, with nothing of our environment."""
        service = read_unit(SERVICES[name], COMMON)["Service"]
        passed = self.folder / f"run-{name}"
        passed.mkdir(mode=0o700)
        for credential in service["LoadCredential"]:
            target, _, source = credential.partition(":")
            shutil.copy(self.credentials / source.removeprefix(CREDENTIALS), passed / target)
        assert service["EnvironmentFile"] == [f"-{SETTINGS}"]
        files = (each.replace("%d", str(passed)).split("=", 1) for each in service["Environment"])
        (line,) = service["ExecStart"]
        line = line.replace("${INVOCATION_ID}", uuid4().hex)
        words = shlex.split(line.replace(INSTALLED, f"{PROGRAMS}{os.sep}"))
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [self._ports.get(word, word) for word in words],
                # EnvironmentFile= goes before Environment=.
                env={"PATH": os.defpath, **dict(files), **self.settings},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self, name: str) -> str:
        """What a unit said."""
        return (self.folder / f"{name}.log").read_text()
