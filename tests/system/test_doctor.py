"""`uplift doctor` beside a running system: well, and with one process down."""

import json
import os
import subprocess
from typing import Any

from tests.system.conftest import Running
from uplift.cli.local.system import command


def doctor(running: Running) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        command("doctor", "--json"),
        env={**os.environ, **running.system.environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    for name in ("UPLIFT_MASTER_KEYS", "UPLIFT_ONEUP_CLIENT_SECRET", "UPLIFT_DATABASE_URL"):
        assert running.system.environment[name] not in done.stdout + done.stderr
    return done.returncode, told


def test_a_running_system_is_well_until_a_process_is_down(running: Running) -> None:
    code, told = doctor(running)
    assert [each for each in told["findings"] if each["verdict"] != "ok"] == []
    assert (code, told["verdict"]) == (0, "ok")

    running.system.processes.kill("bulk")
    try:
        code, told = doctor(running)
    finally:
        running.system.processes.restart("bulk")

    (failed,) = [each for each in told["findings"] if each["verdict"] == "fail"]
    assert code == 1
    assert failed["what"].startswith("queue bulk: no worker replies")
    assert "`bulk`" in failed["do"]
