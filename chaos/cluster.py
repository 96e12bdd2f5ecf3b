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

from chaos.clocks import Clock
from chaos.lasting import LASTING, SECOND, Ground
from chaos.options import Options
from chaos.restores import Restores
from chaos.scenario import API, FIRST, STANDBY, Fault, always, kind_of
from chaos.swallowing_proxy import SwallowingProxy
from chaos.told import Examination, failures
from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uplift.cli.local.ports import HOST, free_port
from uplift.cli.local.system import System, command
from uplift.sandbox.testing import SandboxControl

_READY_SECONDS = 60.0
_ENDS = ("start", "thaw", "end", "back up")
# The bytes tell whose a record is, and which one it was where Uplift rewrites it.
_SHOW_BYTES = "--show-bytes"
_ADDRESSES = {"redis": "UPLIFT_REDIS_URL", "postgres": "UPLIFT_DATABASE_URL"}
_SERVERS = tuple(_ADDRESSES)


class Cluster:
    """The whole system on loopback, with more than one of most processes.

    `done` counts the faults, such as `kill worker`. Use it from the main thread: the kernel ends
    the children of another thread when that thread ends.
    """

    def __init__(self, folder: Path, options: Options, processes: tuple[str, ...]) -> None:
        self._folder = folder
        self._processes = processes
        self._always = always(options)
        clocks = {name: Clock(folder / "clocks", name) for name in (*_SERVERS, SECOND)}
        self.system = System(
            folder,
            options.environment(),
            processes=FIRST,
            like=options.like,
            sandbox_options=(
                (_SHOW_BYTES,) if options.puts else (_SHOW_BYTES, "--ids", options.ids)
            ),
            any_port=True,
            server_environments={name: clocks[name].environment() for name in _SERVERS},
        )
        self._proxies: dict[str, SwallowingProxy] = {}
        self.ground = Ground(self.system, self._proxies, clocks)
        self._stack = ExitStack()
        self._down: set[str] = set()
        self._frozen: dict[str, int] = {}
        self.api_urls: list[str] = []
        self.done: Counter[str] = Counter()
        self.upstream = "healthy"
        self._causes: dict[str, Callable[[Fault], bool]] = {
            "kill": lambda fault: self._kill(fault.target),
            "start": lambda fault: self._start(fault.target),
            "freeze": lambda fault: self.freeze(fault.target),
            "thaw": lambda fault: self.thaw(fault.target),
            "begin": lambda fault: self._begin(fault.target),
            "end": lambda fault: self._end(fault.target),
            "flush": lambda _: self._flush(),
            "back up": lambda fault: self._back_up(fault.target),
            "promote": self._go_back,
            "restore": self._go_back,
            "add people": lambda _: False,  # the backend does that
            "upstream": self._change_upstream,
        }
        self._lasting: dict[str, ExitStack] = {}
        # Each with the process that was up as it began.
        self._examinations: dict[str, tuple[int | None, Examination]] = {}
        self.not_told: list[str] = []
        """Faults of which the doctor said nothing while they lasted."""

    def __enter__(self) -> Self:
        system = self.system.__enter__()
        try:
            self.api_urls.append(system.api_url)
            for name in _SERVERS:
                server = self.server(name)
                assert server is not None  # noqa: S101  embedded here
                self._proxies[name] = self._stack.enter_context(SwallowingProxy(server.port))
            assert system.postgres is not None  # noqa: S101  embedded here
            self.restores = Restores(self._folder, system.postgres, self.environment)
            for name in self._processes:
                if name not in FIRST:
                    self._start_second(name)
            assert system.sandbox_url is not None  # noqa: S101  the only upstream here
            self.sandbox = SandboxControl(system.sandbox_url, system.sandbox_token)
            self.sandbox.faults(*self._always)
        except BaseException:
            self._stack.close()
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
        self._stack.close()

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings that the processes run with."""
        return self.system.environment

    @property
    def second_environment(self) -> dict[str, str]:
        """Those of the second machine: it reaches the servers by the proxies."""
        environment = dict(self.system.environment)
        for name, variable in _ADDRESSES.items():
            server = self.server(name)
            assert server is not None  # noqa: S101  embedded here
            environment[variable] = environment[variable].replace(
                f":{server.port}/", f":{self._proxies[name].port}/"
            )
        return environment

    def log(self, process: str) -> str:
        """What a process has logged."""
        return self.system.processes[process].log.read_text(errors="replace")

    def cause(self, fault: Fault) -> bool:
        """Cause it; False if its target is down, or in that state already."""
        happened = self._causes[fault.kind](fault)
        if happened and fault.kind not in _ENDS:
            self.done[f"{fault.kind} {kind_of(fault.target)}"] += 1
        return happened

    def _change_upstream(self, fault: Fault) -> bool:
        self.sandbox.faults(*self._always, *fault.rules)
        self.upstream = fault.target
        return True

    def restart_ended(self) -> None:
        """Start again each process that ended by itself, as a supervisor does."""
        for name in self._processes:
            if name not in self._down and self.system.processes[name].returncode is not None:
                self.done[f"ended by itself: {kind_of(name)}"] += 1
                self._restart(name)

    def heal(self) -> None:
        """End every fault and start each process that is down."""
        self.sandbox.faults(*self._always)
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
        if self._is_out_of_order(fault.target):
            return False
        stack = ExitStack()
        try:
            stack.enter_context(fault.lasts(self.ground))
        except Exception:  # noqa: BLE001  the server is just starting, or has no memory left
            return False
        self._lasting[name] = stack
        if fault.told:
            environment = self.second_environment if fault.cut_off else self.environment
            examination = Examination(environment, until=fault.told)
            self._examinations[name] = (self._pid(fault.target), examination)
            examination.start()
        return True

    def _end(self, name: str) -> bool:
        stack = self._lasting.get(name)
        if stack is None:
            return False
        if name in self._examinations:
            self._note_told(name, *self._examinations.pop(name))
        stack.close()
        del self._lasting[name]
        return True

    def _note_told(self, name: str, pid: int | None, examination: Examination) -> None:
        """Whether the doctor said so. If it could not end one examination, it may have waited for
        the end of the fault; and the fault ends with its process."""
        examination.end()
        if examination.told:
            self.done["told by the doctor"] += 1
        elif examination.examined and self._pid(LASTING[name].target) == pid:
            parts = sorted({finding.part for finding in failures(examination.findings)})
            self.not_told.append(f"{name}: the doctor fails only {parts}")

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

    def _back_up(self, name: str) -> bool:
        """Keep the ledger as it is now; a standby follows at once."""
        if self._is_out_of_order("postgres"):
            return False
        self.restores.back_up(name)
        if name == STANDBY:
            self.restores.copy(name)
        return True

    def _go_back(self, fault: Fault) -> bool:
        """The ledger goes back to that backup, by the steps of docs/operations.md. For a promotion
        the API goes on."""
        if self._is_out_of_order("postgres") or not self.restores.has(fault.target):
            return False
        stopped = [
            name for name in self._processes if fault.kind == "restore" or kind_of(name) != API
        ]
        for name in stopped:
            self._kill(name)
        if fault.kind == "promote":
            self.restores.promote(fault.target)
        else:
            self.restores.restore(fault.target)
        for name in stopped:
            self._start(name)
        return True

    def _is_out_of_order(self, target: str) -> bool:
        return self._pid(target) is None or self._is_busy(target)

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
        environment = {**self.second_environment, **self.ground.clocks[SECOND].environment()}
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
