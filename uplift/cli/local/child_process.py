"""One child process: how it starts, how it ends, and where its output goes.

A child leads a session of its own, so that Ctrl-C on the terminal reaches only us. If we are killed
with SIGKILL, the `guard` ends it.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import UUID, uuid4

from uplift.cli.local.guard import Guard
from uplift.errors import UpliftError

STOP_SECONDS = 30.0
"""How long a child may take to end by itself before it is killed."""

_TAIL_BYTES = 8192

_guard = Guard()


@dataclass(frozen=True)
class Account:
    """The account of a child that root starts, and the capabilities (capabilities(7)) it keeps."""

    uid: int
    gid: int
    capabilities: tuple[str, ...] = ()
    name: str = ""


class ProcessEnded(UpliftError):
    """A child that should be running is not. The message ends with the last lines of its log."""

    def __init__(self, process: "ChildProcess") -> None:
        super().__init__(
            f"{process.name} {_how_it_ended(process.returncode)}. The last lines of {process.log}:"
            f"\n{process.tail() or '(nothing)'}"
        )


class ChildProcess:
    """One child: its command, its log file, and its end.

    `start`, `stop` and `kill` may follow each other any number of times; each leaves no zombie.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        account: Account | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self._env = env
        self._cwd = cwd
        self._stop_signal = stop_signal
        self._account = account
        self._pass_fds = tuple(pass_fds)
        self._child: subprocess.Popen[bytes] | None = None
        self._group_ended = True
        self._log_start = 0
        self._log_rotated = False
        self.process_id: UUID | None = None
        """The UPLIFT_PROCESS_ID of the child that was started last: each start has its own."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self.returncode is None

    @property
    def returncode(self) -> int | None:
        """As of `subprocess.Popen`: None while running or never started, -N for signal N."""
        if self._child is None:
            return None
        code = self._child.poll()
        if code is not None:
            self._end_group()
        return code

    def start(self) -> None:
        """Start it, unless it runs.

        Raises UpliftError when there is no such program, OSError when it cannot be started.
        """
        if self.running:
            return
        environment = os.environ if self._env is None else self._env
        path = environment.get("PATH")
        if shutil.which(self.argv[0], path=path) is None:
            raise UpliftError(f"{self.name} cannot start: there is no program {self.argv[0]}.")
        self._rotate_log_once()
        self.process_id = uuid4()
        with open(self.log, "ab", opener=_open_private) as log:
            self._log_start = log.tell()
            self._child = subprocess.Popen(  # noqa: S603 - argv lists of our own, never a shell
                [*(run_as(self._account) if self._account else []), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "UPLIFT_PROCESS_ID": str(self.process_id)},
                cwd=self._cwd,
                start_new_session=True,
                pass_fds=self._pass_fds,
            )
        self._group_ended = False
        _guard.began(self._child.pid, self._stop_signal)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask it to end, wait at most `seconds`, then kill it with whatever it started."""
        if self._child is None:
            return
        if self.running:
            self._child.send_signal(self._stop_signal)
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
            except KeyboardInterrupt:
                self.kill()
                raise
        self._end_group()

    def kill(self) -> None:
        """SIGKILL to it and to its process group: it gets no chance to tidy up."""
        if self._child is None:
            return
        if self._child.poll() is None:
            # The child is not reaped yet, so nobody else can have its number.
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        self._end_group()

    def tail(self, lines: int = 20) -> str:
        """The last lines it logged since it was last started."""
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _end_group(self) -> None:
        """End what a dead child left behind, such as the beat process of `celery worker -B`."""
        if self._child is None or self._group_ended:
            return
        # At once after the child was reaped: later its number could belong to someone else.
        self._group_ended = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        _guard.ended(self._child.pid)

    def _rotate_log_once(self) -> None:
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._log_rotated and self.log.exists():
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        self._log_rotated = True


@cache
def setpriv() -> str | None:
    """util-linux's setpriv (busybox's cannot run a program under another account)."""
    program = shutil.which("setpriv") if sys.platform == "linux" else None
    if program is None:
        return None
    tried = subprocess.run(  # noqa: S603 - a fixed command
        [program, "--version"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return program if b"util-linux" in tried.stdout else None


def run_as(account: Account) -> list[str]:
    """The words before a command with which root runs it as another account.

    Raises UpliftError if setpriv is missing.
    """
    program = setpriv()
    if program is None:
        raise UpliftError(
            "PostgreSQL does not run as root, and setpriv, which starts it as another account, is"
            " not installed. Install util-linux, or run Uplift as an ordinary user."
        )
    words = [program, "--reuid", str(account.uid), "--regid", str(account.gid), "--clear-groups"]
    if account.capabilities:
        kept = ",".join(f"+{name}" for name in account.capabilities)
        words += ["--inh-caps", kept, "--ambient-caps", kept]
    return words


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "does not answer"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
