"""Faults that last for a while: each is a `with` block on the running system.

The servers still run, and answer otherwise or not at all; or a process has what it needs no more.
"""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests import postgres_faults, redis_faults
from uplift.cli.local.system import System

Lasts = Callable[[System], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Lasting:
    """One such fault. `target` is what must be up for it, and is not killed meanwhile.

    `told` are the parts of the doctor's result of which one says so; none if it cannot be seen from
    another process.
    """

    target: str
    lasts: Lasts
    told: frozenset[str] = frozenset()


@contextmanager
def _read_only(system: System) -> Iterator[None]:
    assert system.postgres is not None  # noqa: S101  embedded here
    postgres_faults.make_read_only(system.postgres)
    try:
        yield
    finally:
        postgres_faults.make_read_only(system.postgres, False)


def _of_postgres(fault: Callable[..., AbstractContextManager[None]]) -> Lasting:
    return Lasting("postgres", lambda system: fault(system.postgres), frozenset({"postgres"}))


def _of_redis(fault: redis_faults.Fault) -> Lasting:
    def lasts(system: System) -> AbstractContextManager[None]:
        assert system.redis is not None  # noqa: S101  embedded here
        return fault(system.redis)

    return Lasting("redis", lasts, frozenset({"redis"}))


def _without_files(process: str) -> Lasting:
    @contextmanager
    def lasts(system: System) -> Iterator[None]:
        pid = system.processes[process].pid
        if pid is None:
            yield
            return
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        try:
            yield
        finally:
            if system.processes[process].pid == pid:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    return Lasting(process, lasts)


LASTING: dict[str, Lasting] = {
    "PostgreSQL frozen": _of_postgres(postgres_faults.frozen),
    "PostgreSQL a standby": Lasting("postgres", _read_only, frozenset({"postgres"})),
    "PostgreSQL's standby away": _of_postgres(postgres_faults.standby_away),
    "Redis READONLY": _of_redis(redis_faults.read_only),
    "Redis MASTERDOWN": _of_redis(redis_faults.master_down),
    "Redis OOM": _of_redis(redis_faults.full),
    "Redis MISCONF": _of_redis(redis_faults.disk_full),
    "Redis NOPERM": _of_redis(redis_faults.not_permitted),
    "API without descriptors": _without_files("api"),
    "worker without descriptors": _without_files("worker"),
    "beat without descriptors": _without_files("beat"),
}
