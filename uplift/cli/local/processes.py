"""The child processes of `uplift up`: started, watched and stopped together.

Why not a library: honcho's `Manager` was considered first. Its `loop()` takes over the signal
handlers and blocks, starts shell strings (each under a further Python process), and stops
everything at once; it cannot restart or kill one process, keep a log file for each, or stop in an
order, which the demo and the system tests need. supervisor and circus are daemons with their own
configuration. What is left is a thin layer over `subprocess`.

Each child leads a session of its own, so Ctrl-C on the terminal reaches only us, and we stop the
children in order.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import BinaryIO, Self

from uplift.cli.local.child_process import STOP_SECONDS, ChildProcess, ProcessEnded

__all__ = ["ChildProcess", "ProcessEnded", "Processes", "interrupted_by_signals"]

_ECHO_SECONDS = 0.1
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Processes:
    """Named children with their logs in one folder. Leaving the `with` block stops them all.

    `echo`, if given, is called from one other thread with (name, line) for every line they log.
    """

    def __init__(self, logs: Path, *, echo: Callable[[str, str], None] | None = None) -> None:
        self._logs = logs
        self._processes: dict[str, ChildProcess] = {}
        self._echo = _Echo(echo) if echo is not None else None

    def __enter__(self) -> Self:
        if self._echo is not None:
            self._echo.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            if self._echo is not None:
                self._echo.close()

    def __getitem__(self, name: str) -> ChildProcess:
        return self._processes[name]

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> ChildProcess:
        """Start a child. `env` is added to our own environment; it inherits the files `pass_fds`.

        Raises ValueError when the name is taken, and what `ChildProcess.start` raises.
        """
        if name in self._processes:
            raise ValueError(f"A process named {name} was started before: use restart().")
        process = ChildProcess(
            name,
            argv,
            log=self._logs / f"{name}.log",
            # Unbuffered: else the last lines of a killed Python child would be lost in its buffer.
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
            pass_fds=pass_fds,
        )
        process.start()
        self._processes[name] = process
        if self._echo is not None:
            self._echo.follow(name, process.log)
        return process

    def restart(self, name: str) -> None:
        """Stop it, if it runs, and start it again with the same command."""
        process = self._processes[name]
        process.stop()
        process.start()

    def kill(self, name: str) -> None:
        """SIGKILL to it and its process group, as a crash would."""
        self._processes[name].kill()

    def check(self) -> None:
        """Raise ProcessEnded for the first child that has ended."""
        for process in self._processes.values():
            if process.returncode is not None:
                raise ProcessEnded(process)

    def watch(self, seconds: float | None = None) -> None:
        """Return after `seconds` (never, if None), or raise ProcessEnded when a child ends."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            self.check()
            time.sleep(0.1)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop all, the last started first, each in at most `seconds`.

        An interrupt (a second Ctrl-C) kills those that are left, then goes on.
        """
        interrupt: KeyboardInterrupt | None = None
        for process in reversed(self._processes.values()):
            if interrupt is not None:
                process.kill()
                continue
            try:
                process.stop(seconds)
            except KeyboardInterrupt as second:
                interrupt = second
        if interrupt is not None:
            raise interrupt


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Within, SIGTERM and a closed terminal (SIGHUP) end us as Ctrl-C does: children are stopped.

    Only for the main thread, where Python handles signals.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Echo(threading.Thread):
    """Reads the log files as they grow. Children write to files, not to pipes of ours, so that
    they never wait for us, and the files keep their last lines if we are killed."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        super().__init__(name="echo", daemon=True)
        self._say = say
        self._logs: list[tuple[str, BinaryIO]] = []
        self._ended = threading.Event()

    def follow(self, name: str, log: Path) -> None:
        self._logs.append((name, log.open("rb")))

    def run(self) -> None:
        while not self._ended.wait(_ECHO_SECONDS):
            self._say_new_lines()

    def close(self) -> None:
        self._ended.set()
        self.join()
        self._say_new_lines(unfinished=True)
        for _, log in self._logs:
            log.close()

    def _say_new_lines(self, *, unfinished: bool = False) -> None:
        for name, log in list(self._logs):
            while line := log.readline():
                if not line.endswith(b"\n") and not unfinished:
                    log.seek(-len(line), os.SEEK_CUR)
                    break
                self._say(name, line.decode(errors="replace").rstrip())
