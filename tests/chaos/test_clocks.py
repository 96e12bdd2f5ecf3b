"""A process whose clock jumps: the time of day does, elapsed time does not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.clocks import AHEAD_SECONDS, Clock, can_jump, without_jump

_SHOW = "import time; input(); print(time.time(), time.monotonic(), flush=True); "


@pytest.mark.skipif(not can_jump(), reason="no C compiler: no clock jumps")
def test_a_running_process_sees_its_clock_jump_ahead_and_back(tmp_path: Path) -> None:
    clock = Clock(tmp_path, "worker")
    with subprocess.Popen(
        [sys.executable, "-c", 3 * _SHOW],
        env={**os.environ, **clock.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ahead() -> float:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            wall, elapsed = map(float, process.stdout.readline().split())  # type: ignore[union-attr]
            assert abs(elapsed - time.monotonic()) < 5
            return wall - time.time()

        assert abs(ahead()) < 5
        with clock.ahead():
            assert abs(ahead() - AHEAD_SECONDS) < 5
        assert abs(ahead()) < 5


def test_a_time_that_was_written_while_the_clock_was_ahead_is_known() -> None:
    now = time.time()
    assert without_jump(now + AHEAD_SECONDS) == pytest.approx(now)
    assert without_jump(now) == now
