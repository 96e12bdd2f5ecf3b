"""Real child processes, real signals."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from uplift.cli.local.processes import ProcessEnded, Processes
from uplift.errors import UpliftError

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER

# Says its name when it is asked to end, so that the order of ending can be read from one file.
SAYS_GOODBYE = """
import pathlib, signal, sys
def bye(*_):
    with pathlib.Path(sys.argv[1]).open("a") as file:
        file.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
print("up", flush=True)
signal.pause()
"""

# Holds a lock on a file for as long as it lives: proof of its end that needs no process id.
HOLDS_A_LOCK = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("up", flush=True)
time.sleep(60)
"""


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def says_up(log: Path) -> bool:
    return eventually(lambda: log.exists() and "up" in log.read_text())


def is_locked(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_what_a_child_writes_is_in_its_own_private_log(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with Processes(logs) as processes:
        processes.start("api", python("import sys; print('out'); sys.stderr.write('err')"))
        assert eventually(lambda: not processes["api"].running)

    log = logs / "api.log"
    assert sorted(log.read_text().split()) == ["err", "out"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700


def test_the_log_of_the_run_before_is_kept_beside(tmp_path: Path) -> None:
    for word in ("first", "second"):
        with Processes(tmp_path) as processes:
            processes.start("api", python(f"print('{word}')"))
            assert eventually(lambda: not processes["api"].running)

    assert (tmp_path / "api.log").read_text() == "second\n"
    assert (tmp_path / "api.log.1").read_text() == "first\n"


def test_children_get_our_environment_and_what_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "1")
    with Processes(tmp_path) as processes:
        code = "import os; print(os.environ['OURS'], os.environ['ADDED'])"
        processes.start("api", python(code), env={"ADDED": "2"})
        assert eventually(lambda: not processes["api"].running)

    assert (tmp_path / "api.log").read_text() == "1 2\n"


def test_children_are_stopped_the_last_started_first(tmp_path: Path) -> None:
    goodbyes = tmp_path / "goodbyes"
    with Processes(tmp_path) as processes:
        for name in ("postgres", "worker", "api"):
            processes.start(name, python(SAYS_GOODBYE, goodbyes, name))
            assert says_up(tmp_path / f"{name}.log")

    assert goodbyes.read_text().split() == ["api", "worker", "postgres"]


def test_a_child_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        stubborn = processes.start("stubborn", python(STUBBORN))
        assert says_up(stubborn.log)
        processes.stop(seconds=0.2)

        assert stubborn.returncode == -signal.SIGKILL


def test_a_child_that_died_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("beat", python(SLEEPER))
        processes.start("worker", python("import sys; sys.exit('no broker at that address')"))

        with pytest.raises(ProcessEnded) as caught:
            processes.watch(seconds=15)

    assert "worker ended with exit code 1" in str(caught.value)
    assert "no broker at that address" in str(caught.value)


def test_watching_ends_quietly_while_all_children_run(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("beat", python(SLEEPER))
        processes.watch(seconds=0.3)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with (
        Processes(tmp_path) as processes,
        pytest.raises(UpliftError, match="api cannot start: there is no program no-such-program"),
    ):
        processes.start("api", ["no-such-program"])


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("api", python(SLEEPER))
        with pytest.raises(ValueError, match="api"):
            processes.start("api", python(SLEEPER))


def test_a_killed_child_can_be_started_again(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        worker = processes.start("worker", python(SLEEPER))
        first = worker.pid
        processes.kill("worker")

        assert worker.returncode == -signal.SIGKILL
        assert worker.pid is None
        with pytest.raises(ProcessEnded, match="worker was killed by SIGKILL"):
            processes.check()

        processes.restart("worker")
        assert worker.running
        assert worker.pid != first
        processes.check()


def test_the_tail_is_of_the_last_start_only(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        worker = processes.start("worker", python("import os; print(os.getpid())"))
        assert eventually(lambda: not worker.running)
        first = worker.tail()
        processes.restart("worker")
        assert eventually(lambda: not worker.running)

        assert worker.tail() != first
        assert len(worker.tail().splitlines()) == 1


@pytest.mark.parametrize("end", ["kill", "its own exit"])
def test_what_a_dead_child_started_ends_too(tmp_path: Path, end: str) -> None:
    lock, leave = tmp_path / "lock", tmp_path / "leave"
    parent = (
        "import pathlib, subprocess, sys, time; subprocess.Popen(sys.argv[2:])\n"
        "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)"
    )
    with Processes(tmp_path) as processes:
        worker = processes.start("worker", python(parent, leave, *python(HOLDS_A_LOCK, lock)))
        assert says_up(worker.log)
        assert is_locked(lock)

        if end == "kill":
            processes.kill("worker")
        else:
            leave.touch()
            assert eventually(lambda: not worker.running)

        assert eventually(lambda: not is_locked(lock))


def test_lines_are_echoed_with_the_name_of_their_child(tmp_path: Path) -> None:
    heard: list[tuple[str, str]] = []
    with Processes(tmp_path, echo=lambda name, line: heard.append((name, line))) as processes:
        processes.start("api", python("print('one'); print('two'); print('unfinished', end='')"))
        processes.start("beat", python("print('three')"))
        assert eventually(lambda: not processes["api"].running and not processes["beat"].running)

    assert [line for name, line in heard if name == "api"] == ["one", "two", "unfinished"]
    assert [line for name, line in heard if name == "beat"] == ["three"]


def test_a_second_interrupt_kills_those_that_are_left(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    for name in ("one", "two"):
        processes.start(name, python(STUBBORN))
        assert says_up(tmp_path / f"{name}.log")
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            processes.stop(seconds=60)
    finally:
        timer.join()

    assert processes["one"].returncode == -signal.SIGKILL
    assert processes["two"].returncode == -signal.SIGKILL


# A supervisor of its own, to be interrupted or killed from outside.
SUPERVISOR = textwrap.dedent(
    """
    import sys, threading
    from pathlib import Path
    from uplift.cli.local.processes import Processes, interrupted_by_signals
    logs, lock, *command = sys.argv[1:]
    with interrupted_by_signals(), Processes(Path(logs)) as processes:
        # Not from the main thread: what had ended by itself is started again by another one.
        thread = threading.Thread(target=processes.start, args=("child", command))
        thread.start()
        thread.join()
        processes.watch()
    """
)


def start_supervisor(folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    lock = folder / "lock"
    supervisor = subprocess.Popen(
        python(SUPERVISOR, folder, lock, *python(HOLDS_A_LOCK, lock)), stderr=subprocess.DEVNULL
    )
    try:
        assert says_up(folder / "child.log")
        assert is_locked(lock)
    except BaseException:
        supervisor.kill()
        supervisor.wait()
        raise
    return supervisor, lock


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_us_stops_the_children(tmp_path: Path, number: signal.Signals) -> None:
    supervisor, lock = start_supervisor(tmp_path)
    supervisor.send_signal(number)

    supervisor.wait(30)
    assert not is_locked(lock)


def test_children_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    supervisor, lock = start_supervisor(tmp_path)
    supervisor.kill()
    supervisor.wait(30)

    assert eventually(lambda: not is_locked(lock))
