"""The real processes of a chaos run: killed, frozen, started again."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import redis

from chaos.options import Options
from chaos.scenario import API, FIRST, Fault, kind_of
from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.system import System, command
from uplift.sandbox.testing import SandboxControl

_READY_SECONDS = 60.0
# Uplift rewrites records for HAPI, so the bytes are needed to know which one it was.
_SANDBOX_OPTIONS = {"hapi": ("--show-bytes",)}


class Cluster:
    """The whole system on loopback, with more than one of most processes.

    `done` counts the faults, such as `kill worker`. Use it from the main thread: the kernel ends
    the children of another thread when that thread ends.
    """

    def __init__(self, folder: Path, options: Options, processes: tuple[str, ...]) -> None:
        self._processes = processes
        self._system = System(
            folder,
            options.environment(),
            processes=FIRST,
            like=options.like,
            sandbox_options=_SANDBOX_OPTIONS.get(options.like, ("--ids", options.ids)),
            any_port=True,
        )
        self._down: set[str] = set()
        self._frozen: dict[str, int] = {}
        self.api_urls: list[str] = []
        self.done: Counter[str] = Counter()
        self.upstream = "healthy"

    def __enter__(self) -> Self:
        system = self._system.__enter__()
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
        self._thaw_all()
        self.sandbox.close()
        self._system.__exit__(exc_type, exc, traceback)

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings that the processes run with."""
        return self._system.environment

    def log(self, process: str) -> str:
        """What a process has logged."""
        return self._system.processes[process].log.read_text(errors="replace")

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
            case "flush":
                happened = self._flush()
            case _:
                self.sandbox.faults(*fault.rules)
                self.upstream, happened = fault.target, True
        if happened and fault.kind not in ("start", "thaw"):
            self.done[f"{fault.kind} {kind_of(fault.target)}"] += 1
        return happened

    def restart_ended(self) -> None:
        """Start again each process that ended by itself, as a supervisor does."""
        for name in self._processes:
            if name not in self._down and self._system.processes[name].returncode is not None:
                self.done[f"ended by itself: {kind_of(name)}"] += 1
                self._restart(name)

    def heal(self) -> None:
        """End every fault and start each process that is down."""
        self.sandbox.clear_faults()
        self.upstream = "healthy"
        self._thaw_all()
        for name in ("postgres", "redis", *self._processes):
            self._start(name)

    def freeze(self, target: str) -> bool:
        """SIGSTOP to the process and its children."""
        pid = self._pid(target)
        if pid is None or target in self._frozen:
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

    def _kill(self, target: str) -> bool:
        if self._pid(target) is None:
            return False
        self._frozen.pop(target, None)
        self._down.add(target)
        server = self._server(target)
        if server is not None:
            server.kill()
        else:
            self._system.processes.kill(target)
        return True

    def _start(self, target: str) -> bool:
        self._down.discard(target)
        if self._pid(target) is not None:
            return False
        server = self._server(target)
        if server is not None:
            server.start()
        else:
            self._restart(target)
        return True

    def _restart(self, name: str) -> None:
        """The supervisor of the first of each kind tells the ledger of its end; of the second,
        nobody does, as when a machine is switched off."""
        if name in FIRST:
            self._system.restart(name)
        else:
            self._system.processes.restart(name)

    def _flush(self) -> bool:
        try:
            with redis.Redis.from_url(
                self._system.environment["UPLIFT_REDIS_URL"], socket_timeout=1
            ) as server:
                server.flushall()
        except redis.RedisError:
            return False
        return True

    def _server(self, target: str) -> EmbeddedPostgres | EmbeddedRedis | None:
        match target:
            case "redis":
                return self._system.redis
            case "postgres":
                return self._system.postgres
        return None

    def _pid(self, target: str) -> int | None:
        server = self._server(target)
        return server.pid if server is not None else self._system.processes[target].pid

    def _start_second(self, name: str) -> None:
        kind = kind_of(name)
        environment = dict(self._system.environment)
        if kind == API:
            port = free_port()
            environment["UPLIFT_API_PORT"] = str(port)
            self.api_urls.append(f"http://{HOST}:{port}")
        self._system.processes.start(name, command(kind), env=environment)

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
