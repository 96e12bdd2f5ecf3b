"""What a run that was killed left behind is ended by the next one, by the lock that it has open."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from uplift.cli.local import guard
from uplift.cli.local import holders as module
from uplift.cli.local.embedded import FolderInUse
from uplift.cli.local.embedded.lock import FolderLock
from uplift.cli.local.holders import holders

# A run whose child inherits the lock.
RUN = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from uplift.cli.local.embedded.lock import FolderLock
    from uplift.cli.local.processes import Processes
    folder, *command = sys.argv[1:]
    lock = FolderLock(Path(folder) / "system.lock")
    lock.acquire()
    with Processes(Path(folder)) as processes:
        processes.start("child", command, pass_fds=(lock.fd,))
        print(processes["child"].pid, flush=True)
        processes.watch()
    """
)
OBEDIENT = [sys.executable, "-c", "import time; time.sleep(300)"]


class Run:
    """A run, its child and its guard."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(folder), *OBEDIENT], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.child = psutil.Process(int(self.process.stdout.readline()))
        (self.guard,) = (
            each
            for each in psutil.Process(self.process.pid).children()
            if guard.__file__ in each.cmdline()
        )

    def kill(self, *, with_the_guard: bool) -> None:
        """End it as `kill -9` does."""
        if with_the_guard:
            self.guard.kill()
        self.process.kill()
        self.process.wait()


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started = Run(tmp_path)
    yield started
    for process in (started.process, started.child, started.guard):
        if process.pid and psutil.pid_exists(process.pid):
            process.kill()
    started.process.wait()
    if started.process.stdout is not None:
        started.process.stdout.close()


def test_the_next_run_ends_what_was_left_behind(tmp_path: Path, run: Run) -> None:
    run.kill(with_the_guard=True)
    time.sleep(0.5)  # nobody ends it
    assert not has_ended(run.child)

    lock = FolderLock(tmp_path / "system.lock")
    lock.acquire()
    lock.release()
    assert has_ended(run.child)


def test_while_the_run_is_alive_the_next_one_is_refused_and_nothing_ends(
    tmp_path: Path, run: Run
) -> None:
    with pytest.raises(FolderInUse, match=f"in use by process {run.process.pid}"):
        FolderLock(tmp_path / "system.lock").acquire()
    assert not has_ended(run.child)


def test_a_stale_number_that_is_another_process_s_now_does_not_keep_the_lock(
    tmp_path: Path, run: Run
) -> None:
    run.kill(with_the_guard=True)
    (tmp_path / "system.lock").write_text(str(os.getppid()))
    lock = FolderLock(tmp_path / "system.lock")
    lock.acquire()
    lock.release()
    assert has_ended(run.child)


def test_the_guard_ends_a_child_and_itself(run: Run) -> None:
    run.kill(with_the_guard=False)
    run.child.wait(10)
    run.guard.wait(10)


def test_the_guard_gets_nothing_of_our_environment_and_ignores_what_stops_us(run: Run) -> None:
    assert set(run.guard.environ()) <= {"LD_LIBRARY_PATH", "LC_CTYPE"}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        run.guard.send_signal(number)
    time.sleep(0.2)
    assert not has_ended(run.guard)


def test_without_proc_lsof_tells_who_has_a_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PROC", tmp_path / "none")
    program = tmp_path / "lsof"
    program.write_text(f'#!/bin/sh\n[ "$*" = "-t -- {tmp_path}/lock" ] && echo 12 && echo $PPID\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert holders(tmp_path / "lock") == {12}
