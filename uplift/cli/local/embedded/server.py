"""What the two embedded servers share: a locked folder, a loopback port, a wait until ready."""

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from uplift.cli.local.child_process import Account, ChildProcess
from uplift.cli.local.embedded.lock import FolderLock
from uplift.cli.local.ports import free_port
from uplift.errors import ConfigurationError, UpliftError

_READY_SECONDS = 60.0
_PORT_TAKEN = "Address already in use"


class ServerFailed(UpliftError):
    """An embedded server did not start. The message ends with the last lines of its log."""


class Server(ABC):
    """A server of ours on loopback, with its data in one folder.

    The port is chosen when it first starts and kept for the life of this object, so that clients
    find a server that was killed and started again. `environment` are variables that it gets beside
    a few of ours. `start` and `restart` raise FolderInUse,
    ServerFailed, or ConfigurationError.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    passing_troubles: ClassVar[tuple[str, ...]] = ()
    """Log lines of a failed start whose reason goes away by itself."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._environment = dict(environment or {})
        self._fixed_port = port
        self._port: int | None = None
        self._lock = FolderLock(self.data_dir / f"{self.name}.lock")
        self._locked = False
        self._process: ChildProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """Where the server keeps its files."""
        return self.data_dir / self.name

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1.

        Raises ValueError before the first start.
        """
        if self._port is None:
            raise ValueError(f"{self.title} was not started yet.")
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the server and wait until it answers, unless it runs."""
        if self._process is not None and self._process.running:
            return
        try:
            private_folder(self.data_dir)
            if not self._locked:
                self._lock.acquire()
                self._locked = True
            self._start_on_a_port()
        except PermissionError as error:
            self.stop()
            raise ConfigurationError(
                f"This user may not use {error.filename}. If Uplift ran as another user before,"
                " such as root, run it as that user, or set UPLIFT_DATA_DIR to another folder."
            ) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it cleanly, if it runs, and unlock the folder."""
        if self._process is not None:
            self._process.stop(_READY_SECONDS)
            self._process = None
        if self._locked:
            self._lock.release()
            self._locked = False

    def restart(self) -> None:
        """Stop it, if it runs, and start it again on the same port."""
        if self._process is not None:
            self._process.stop(_READY_SECONDS)
        self.start()

    def kill(self) -> None:
        """Send SIGKILL, like a crash. `start` brings it back with all that was durable."""
        if self._process is not None:
            self._process.kill()

    def check(self) -> None:
        """Raise ServerFailed if the server was started and has ended by itself."""
        if self._process is not None and not self._process.running:
            raise self._failed(self._process, "has stopped")

    @property
    @abstractmethod
    def url(self) -> str:
        """The address with its password, for the setting of the same kind."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write the files that it needs; called before every try to start, with the port known."""

    @abstractmethod
    def _argv(self) -> list[str]:
        """The command, once the port is known."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the server answers as it should."""

    def _account(self) -> Account | None:
        """The account under which the server runs; None for our own."""
        return None

    def _start_on_a_port(self) -> None:
        choose_port = self._port is None and self._fixed_port is None
        if self._port is None:
            self._port = self._fixed_port or free_port()
        deadline = time.monotonic() + _READY_SECONDS
        while not self._started_once(deadline):
            # Another program took the port before the server could.
            if choose_port:
                self._port = free_port()
            time.sleep(0.1)

    def _started_once(self, deadline: float) -> bool:
        """Whether the start worked; False if another try may work.

        Raises ServerFailed if none can.
        """
        self._prepare()
        process = self._process
        if process is None or process.argv != self._argv():
            process = self._process = self._new_process()
        process.start()
        while process.running:
            if self._is_ready():
                return True
            if time.monotonic() > deadline:
                raise self._failed(process, f"was not ready after {_READY_SECONDS:.0f} s")
            time.sleep(0.05)
        output = process.tail()
        may_try_again = any(trouble in output for trouble in self.passing_troubles) or (
            _PORT_TAKEN in output and self._fixed_port is None
        )
        if may_try_again and time.monotonic() < deadline:
            return False
        raise self._failed(process, "did not start")

    def _new_process(self) -> ChildProcess:
        # A server needs nothing of our environment, which holds keys.
        kept = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
        return ChildProcess(
            self.name,
            self._argv(),
            log=self.data_dir / "logs" / f"{self.name}.log",
            env={name: os.environ[name] for name in kept if name in os.environ}
            | {"LC_ALL": "C", "TZ": "UTC"}
            | self._environment,
            cwd=self.folder,
            stop_signal=self.stop_signal,
            account=self._account(),
            pass_fds=(self._lock.fd,),
        )

    def _failed(self, process: ChildProcess, what: str) -> ServerFailed:
        return ServerFailed(
            f"The embedded {self.title} {what}. The last lines of {process.log}:\n"
            f"{process.tail() or '(nothing)'}"
        )


def private_folder(path: Path) -> None:
    """Make a folder that only its owner can read. One that exists is left as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
