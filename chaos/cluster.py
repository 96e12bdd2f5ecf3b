"""The real processes of a chaos run: killed, frozen, started again."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import redis

from chaos.lasting import LASTING
from chaos.options import Options
from chaos.scenario import API, FIRST, Fault, kind_of
from chaos.told import Examination, failures
from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.system import System, command
from uplift.sandbox.testing import SandboxControl

_READY_SECONDS = 60.0
# Uplift rewrites records that it puts, so the bytes are needed to know which one it was.
_SHOW_BYTES = ("--show-bytes",)
_SERVERS = ("redis", "postgres")


class Cluster:
    """The whole system on loopback, with more than one of most processes.

    `done` counts the faults, such as `kill worker`. Use it from the main thread: the kernel ends
    the children of another thread when that thread ends.
    """

    def __init__(self, folder: Path, options: Options, processes: tuple[str, ...]) -> None:
        self._processes = processes
        self.system = System(
            folder,
            options.environment(),
            processes=FIRST,
            like=options.like,
            sandbox_options=_SHOW_BYTES if options.puts else ("--ids", options.ids),
            any_port=True,
        )
        self._down: set[str] = set()
        self._frozen: dict[str, int] = {}
        self.api_urls: list[str] = []
        self.done: Counter[str] = Counter()
        self.upstream = "healthy"
        self._lasting: dict[str, ExitStack] = {}
        self._examinations: dict[str, Examination] = {}
        self.not_told: list[str] = []
        """Faults of which the doctor said nothing while they lasted."""

    def __enter__(self) -> Self:
        system = self.system.__enter__()
        try:
            self.api_urls.append(system.api_url)
            for name in self._processes:
                if name not in FIRST:
                    self._start_second(name)
            assert system.sandbox_url is not None  # noqa: S101  the only upstream here
            self.sandbox = SandboxControl(system.sandbox_url, system.sandbox_token)
        except BaseException:
            system.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_all()
        self._thaw_all()
        self.sandbox.close()
        self.system.__exit__(exc_type, exc, traceback)

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings that the processes run with."""
        return self.system.environment

    def log(self, process: str) -> str:
        """What a process has logged."""
        return self.system.processes[process].log.read_text(errors="replace")

    def cause(self, fault: Fault) -> bool:
        """Cause it; False if its target is down, or in that state already."""
        match fault.kind:
            case "kill":
                happened = self._kill(fault.target)
            case "start":
                happened = self._start(fault.target)
            case "freeze":
                happened = self.freeze(fault.target)
            case "thaw":
                happened = self.thaw(fault.target)
            case "begin":
                happened = self._begin(fault.target)
            case "end":
                happened = self._end(fault.target)
            case "flush":
                happened = self._flush()
            case _:
                self.sandbox.faults(*fault.rules)
                self.upstream, happened = fault.target, True
        if happened and fault.kind not in ("start", "thaw", "end"):
            self.done[f"{fault.kind} {kind_of(fault.target)}"] += 1
        return happened

    def restart_ended(self) -> None:
        """Start again each process that ended by itself, as a supervisor does."""
        for name in self._processes:
            if name not in self._down and self.system.processes[name].returncode is not None:
                self.done[f"ended by itself: {kind_of(name)}"] += 1
                self._restart(name)

    def heal(self) -> None:
        """End every fault and start each process that is down."""
        self.sandbox.clear_faults()
        self.upstream = "healthy"
        self._end_all()
        self._thaw_all()
        for name in ("postgres", "redis", *self._processes):
            self._start(name)

    def freeze(self, target: str) -> bool:
        """SIGSTOP to the process and its children."""
        pid = self._pid(target)
        if pid is None or self._is_busy(target):
            return False
        os.killpg(pid, signal.SIGSTOP)
        self._frozen[target] = pid
        return True

    def thaw(self, target: str) -> bool:
        """SIGCONT, if it is still the process that was frozen."""
        pid = self._frozen.pop(target, None)
        if pid is None or pid != self._pid(target):
            return False
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGCONT)
        return True

    def _thaw_all(self) -> None:
        for target in list(self._frozen):
            self.thaw(target)

    def _begin(self, name: str) -> bool:
        fault = LASTING[name]
        if self._pid(fault.target) is None or self._is_busy(fault.target):
            return False
        stack = ExitStack()
        try:
            stack.enter_context(fault.lasts(self.system))
        except Exception:  # noqa: BLE001  the server is just starting, or has no memory left
            return False
        self._lasting[name] = stack
        if fault.told:
            self._examinations[name] = Examination(self.environment)
            self._examinations[name].start()
        return True

    def _end(self, name: str) -> bool:
        stack = self._lasting.get(name)
        if stack is None:
            return False
        examination = self._examinations.pop(name, None)
        if examination is not None:
            parts = {finding.part for finding in failures(examination.findings)}
            if parts & LASTING[name].told:
                self.done["told by the doctor"] += 1
            elif not examination.is_alive():
                self.not_told.append(f"{name}: the doctor fails only {sorted(parts)}")
            # One that has not ended may wait for the end of the fault.
        stack.close()
        del self._lasting[name]
        return True

    def _end_all(self) -> None:
        for name in list(self._lasting):
            self._end(name)

    def _is_busy(self, target: str) -> bool:
        """Whether a fault lasts there that a kill, or another one, would hide."""
        return target in self._frozen or any(
            LASTING[name].target == target for name in self._lasting
        )

    def _kill(self, target: str) -> bool:
        if self._pid(target) is None or (target in _SERVERS and self._is_busy(target)):
            return False
        self._frozen.pop(target, None)
        self._down.add(target)
        server = self.server(target)
        if server is not None:
            server.kill()
        else:
            self.system.processes.kill(target)
        return True

    def _start(self, target: str) -> bool:
        self._down.discard(target)
        if self._pid(target) is not None:
            return False
        server = self.server(target)
        if server is not None:
            server.start()
        else:
            self._restart(target)
        return True

    def _restart(self, name: str) -> None:
        """The supervisor of the first of each kind tells the ledger of its end; of the second,
        nobody does, as when a machine is switched off."""
        if name in FIRST:
            self.system.restart(name)
        else:
            self.system.processes.restart(name)

    def _flush(self) -> bool:
        try:
            with redis.Redis.from_url(
                self.system.environment["UPLIFT_REDIS_URL"], socket_timeout=1
            ) as server:
                server.flushall()
        except redis.RedisError:
            return False
        return True

    def server(self, target: str) -> EmbeddedPostgres | EmbeddedRedis | None:
        """The embedded server of that name; None for a process."""
        match target:
            case "redis":
                return self.system.redis
            case "postgres":
                return self.system.postgres
        return None

    def _pid(self, target: str) -> int | None:
        server = self.server(target)
        return server.pid if server is not None else self.system.processes[target].pid

    def _start_second(self, name: str) -> None:
        kind = kind_of(name)
        environment = dict(self.system.environment)
        if kind == API:
            port = free_port()
            environment["UPLIFT_API_PORT"] = str(port)
            self.api_urls.append(f"http://{HOST}:{port}")
        self.system.processes.start(name, command(kind), env=environment)

    def until_ready(self) -> None:
        """Wait until the workers are ready for messages, and beat sweeps. Raises TimeoutError."""
        said = {"worker": " ready.", "bulk": " ready.", "beat": "beat_started"}
        for name in self._processes:
            if (line := said.get(kind_of(name))) is not None:
                _until(lambda name=name, line=line: line in self.log(name), name)  # type: ignore[misc]

    def until_api_answers(self) -> None:
        """Wait until every API process answers. Raises TimeoutError."""
        for url in self.api_urls:
            _until(lambda url=url: _answers(url), url)  # type: ignore[misc]


def _until(reached: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} did not become ready in {_READY_SECONDS:.0f} s.")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False
