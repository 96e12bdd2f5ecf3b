"""Faults that last for a while: each is a `with` block on the running system.

The servers still run, and answer otherwise or not at all; or a process has what it needs no more.
"""

import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from chaos import clocks, postgres_faults, redis_faults
from chaos.clocks import Clock
from chaos.swallowing_proxy import SwallowingProxy
from uplift.cli.local.system import System

SECOND = "the second machine"
"""The second process of each kind. It reaches the servers by proxies, and has its own clock."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What faults are made of. `proxies` are before the servers, `clocks` those of the servers and
    of the second machine."""

    system: System
    proxies: Mapping[str, SwallowingProxy]
    clocks: Mapping[str, Clock]


Lasts = Callable[[Ground], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Lasting:
    """One such fault. `target` is what must be up for it; a server is not killed meanwhile.

    `told` are the parts of the doctor's result of which one says so, asked on the second machine if
    `cut_off`. Without a part, nobody can see it from there.
    """

    target: str
    lasts: Lasts
    told: frozenset[str] = frozenset()
    cut_off: bool = False


@contextmanager
def _read_only(ground: Ground) -> Iterator[None]:
    server = ground.system.postgres
    assert server is not None  # noqa: S101  embedded here
    postgres_faults.make_read_only(server)
    try:
        yield
    finally:
        postgres_faults.make_read_only(server, False)


def _of_postgres(fault: Callable[..., AbstractContextManager[None]]) -> Lasting:
    return Lasting(
        "postgres", lambda ground: fault(ground.system.postgres), frozenset({"postgres"})
    )


def _of_redis(fault: redis_faults.Fault) -> Lasting:
    def lasts(ground: Ground) -> AbstractContextManager[None]:
        assert ground.system.redis is not None  # noqa: S101  embedded here
        return fault(ground.system.redis)

    return Lasting("redis", lasts, frozenset({"redis"}))


def _half_open(server: str) -> Lasting:
    return Lasting(
        server,
        lambda ground: ground.proxies[server].swallowing(),
        frozenset({server}),
        cut_off=True,
    )


def _ahead(clock: str, target: str, told: str) -> Lasting:
    return Lasting(target, lambda ground: ground.clocks[clock].ahead(), frozenset({told}))


def _without_files(process: str) -> Lasting:
    @contextmanager
    def lasts(ground: Ground) -> Iterator[None]:
        processes = ground.system.processes
        pid = processes[process].pid
        if pid is None:
            yield
            return
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        try:
            yield
        finally:
            if processes[process].pid == pid:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    return Lasting(process, lasts, frozenset({"processes"}))


_CLOCKS: dict[str, Lasting] = {
    "PostgreSQL's clock a day ahead": _ahead("postgres", "postgres", "postgres"),
    "Redis' clock a day ahead": _ahead("redis", "redis", "redis"),
    "a worker's clock a day ahead": _ahead(SECOND, "worker-2", "processes"),
}

LASTING: dict[str, Lasting] = {
    "PostgreSQL frozen": _of_postgres(postgres_faults.frozen),
    "PostgreSQL a standby": Lasting("postgres", _read_only, frozenset({"postgres"})),
    "PostgreSQL's standby away": _of_postgres(postgres_faults.standby_away),
    "PostgreSQL half-open": _half_open("postgres"),
    "Redis READONLY": _of_redis(redis_faults.read_only),
    "Redis MASTERDOWN": _of_redis(redis_faults.master_down),
    "Redis OOM": _of_redis(redis_faults.full),
    "Redis MISCONF": _of_redis(redis_faults.disk_full),
    "Redis NOPERM": _of_redis(redis_faults.not_permitted),
    "Redis half-open": _half_open("redis"),
    "API without descriptors": _without_files("api"),
    "worker without descriptors": _without_files("worker"),
    "beat without descriptors": _without_files("beat"),
    **(_CLOCKS if clocks.can_jump() else {}),
}
