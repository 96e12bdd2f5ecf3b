"""A stop ends within its limit, whatever hangs."""

import subprocess
import sys
import threading

from uplift.stopping import limit_stop

_HANGS = """
import signal, threading
from uplift.stopping import limit_stop
signal.signal(signal.SIGTERM, lambda *_: None)
limit_stop(0.05)
threading.Event().wait()
"""


def test_a_process_that_does_not_stop_by_itself_is_ended() -> None:
    ended = subprocess.run([sys.executable, "-c", _HANGS], capture_output=True, timeout=30)
    assert ended.returncode == 70
    assert b"stop_took_too_long" in ended.stdout + ended.stderr


def test_a_limit_that_has_not_come_ends_nothing() -> None:
    ended = threading.Event()
    timer = limit_stop(60, end=ended.set)
    timer.cancel()
    assert not ended.is_set()
