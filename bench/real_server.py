"""Records a second at a FHIR server that nobody here wrote, singly and in Bundles.

Uplift drains a backlog; a bare loop sends the same. Both have as many requests in flight. Uplift's
time is the ledger's: from the first claim to the last delivery that is written down.
"""

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import psutil
from rich.console import Console
from rich.table import Table

from bench.baseline_puts import send_all
from bench.figures import Figure, Target
from bench.plan import Plan
from bench.resources import bodies
from bench.testbed import Testbed, cpu_seconds

_WARM_UP = 100  # uploads: a worker's imports and schemas, and the Patients of the people
_SECONDS = 600.0
# A backend of PostgreSQL: `postgres: ROLE DATABASE ADDRESS(PORT) …`.
_BACKEND = re.compile(r"postgres: \S+ (\S+) \S+\(\d+\)")
_ELSE = "the rest of PostgreSQL"


@dataclass(frozen=True, slots=True)
class Shape:
    """How records go: so many in a request, and so many requests in flight."""

    entries: int
    in_flight: int

    @property
    def name(self) -> str:
        """For a table."""
        return "singly" if self.entries == 1 else f"in Bundles of {self.entries}"


SHAPES = (Shape(1, 16), Shape(20, 4), Shape(50, 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server: its base for R4, its process, and what a request needs to be let in."""

    name: str
    base: str
    pid: int
    authorization: str = ""


@dataclass(slots=True)
class _Measured:
    """The rounds of one shape, ours or the loop's: records/s, and ms of CPU a record by process."""

    rates: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    again: int = 0  # uploads that needed more than one attempt


def warm_up(server: Server, singles: int, bundled: int) -> None:
    """A JVM compiles what runs often: its first requests take twice as long."""
    for shape, count in ((SHAPES[0], singles), (SHAPES[-1], bundled)):
        send_all(
            server.base,
            count,
            in_flight=shape.in_flight,
            entries=shape.entries,
            authorization=server.authorization,
        )


def measure(testbed: Testbed, server: Server, plan: Plan, counts: Sequence[int]) -> list[Figure]:
    """Measure the shapes in turn, `counts` records each. Prints the CPU of each process."""
    ours = {shape: _Measured() for shape in SHAPES}
    loop = {shape: _Measured() for shape in SHAPES}
    for number in range(plan.rounds):
        for shape, count in zip(SHAPES, counts, strict=True):
            name = f"{server.name}-{shape.entries}-{number}"
            _measure_uplift(testbed, server, shape, name, plan.of(count), ours[shape])
            _measure_loop(testbed, server, shape, plan.of(count), loop[shape])
    Console(width=140).print(_cpu_table(server.name, ours, loop))
    return [*_figures(server.name, ours, loop)]


def _measure_uplift(
    testbed: Testbed, server: Server, shape: Shape, worker: str, count: int, into: _Measured
) -> None:
    child = testbed.start_worker(
        worker,
        max_in_flight=shape.entries * shape.in_flight,
        settings={
            "UPLIFT_DESTINATION_BUNDLE": "none" if shape.entries == 1 else "transaction",
            "UPLIFT_DESTINATION_BUNDLE_ENTRIES": str(shape.entries),
        },
    )
    try:
        _deliver(testbed, _WARM_UP)
        before = _cpu(testbed, server, worker)
        seconds, again = _deliver(testbed, count)
        _note(into, count, seconds, _used(before, _cpu(testbed, server, worker)))
        into.again += again
    finally:
        child.stop()


def _deliver(testbed: Testbed, count: int) -> tuple[float, int]:
    """Drain a backlog. The seconds, and how many uploads needed more than one attempt."""
    label = testbed.label()
    testbed.ledger.execute("INSERT INTO pauses (id) VALUES (gen_random_uuid())")
    ids = testbed.put_in(("R4", type_, body) for type_, body in bodies(label, count))
    testbed.ledger.execute("DELETE FROM pauses")
    testbed.dispatch(ids)
    testbed.wait_delivered(ids, _SECONDS)
    return _seconds(testbed, ids), testbed.one(
        "SELECT count(*) FROM uploads WHERE id = ANY(%s) AND attempts > 1", [ids]
    )


def _seconds(testbed: Testbed, ids: list[UUID]) -> float:
    row = testbed.ledger.execute(
        "SELECT extract(epoch FROM max(closed_at) - min(opened_at)) FROM attempts"
        " WHERE upload_id = ANY(%s)",
        [ids],
    ).fetchone()
    assert row is not None  # noqa: S101
    return float(row[0])


def _measure_loop(
    testbed: Testbed, server: Server, shape: Shape, count: int, into: _Measured
) -> None:
    before = _cpu(testbed, server)
    taken = send_all(
        server.base,
        count,
        in_flight=shape.in_flight,
        entries=shape.entries,
        authorization=server.authorization,
    )
    used = _used(before, _cpu(testbed, server))
    _note(into, count, taken.seconds, used | {"loop": taken.cpu_seconds})


def _cpu(testbed: Testbed, server: Server, worker: str | None = None) -> dict[str, float]:
    """Seconds of CPU so far, by process."""
    found = defaultdict(float, {server.name: cpu_seconds(server.pid)})
    if worker is not None:
        found["worker"] = testbed.cpu_seconds(worker)
    postgres = testbed.system.postgres
    assert postgres is not None  # noqa: S101
    assert postgres.pid is not None  # noqa: S101
    for child in psutil.Process(postgres.pid).children(recursive=True):
        try:
            backend = _BACKEND.match(" ".join(child.cmdline()))
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        if backend:
            found[f"PostgreSQL: {backend[1]}"] += times.user + times.system
    of_backends = sum(found[name] for name in found if name.startswith("PostgreSQL: "))
    found[_ELSE] = testbed.cpu_seconds("postgres") - of_backends
    return found


def _used(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: cpu - before.get(name, 0.0) for name, cpu in after.items()}


def _note(into: _Measured, count: int, seconds: float, used: Mapping[str, float]) -> None:
    into.rates.append(count / seconds)
    for name, cpu in used.items():
        into.cpu[name].append(cpu / count * 1000)


def _cpu_table(server: str, ours: dict[Shape, _Measured], loop: dict[Shape, _Measured]) -> Table:
    everything = [*ours.values(), *loop.values()]
    names = list(dict.fromkeys(name for each in everything for name in each.cpu))
    shown = Table(title=f"{server}: ms of CPU a record, median of the rounds")
    for column in ("", "records/s", *names, "together", "sent again"):
        shown.add_column(column, justify="right" if column else "left")
    for who, measured in (("Uplift", ours), ("loop", loop)):
        for shape, each in measured.items():
            cpu = {name: statistics.median(rounds) for name, rounds in each.cpu.items()}
            shown.add_row(
                f"{who}, {shape.name}",
                f"{statistics.median(each.rates):,.0f}",
                *(f"{max(cpu[name], 0.0):.2f}" if name in cpu else "" for name in names),
                f"{sum(cpu.values()):.2f}",
                str(each.again) if measured is ours else "",
            )
    return shown


def _figures(
    server: str, ours: dict[Shape, _Measured], loop: dict[Shape, _Measured]
) -> list[Figure]:
    singles, *bundles = SHAPES

    def figure(
        shape: Shape, against: str, theirs: _Measured, target: Target | None, **more: object
    ) -> Figure:
        return Figure(
            section=server,
            what=f"records/s {shape.name}",
            unit="/s",
            against=against,
            ours=tuple(ours[shape].rates),
            theirs=tuple(theirs.rates),
            target=target,
            more=more,
        )

    return [
        *(
            figure(
                shape,
                f"a loop of the same, {shape.in_flight} requests in flight",
                loop[shape],
                None if shape is singles else Target(0.5),
                cpu_ms=dict(ours[shape].cpu),
                cpu_ms_of_loop=dict(loop[shape].cpu),
                more_than_one_attempt=ours[shape].again,
            )
            for shape in SHAPES
        ),
        *(figure(shape, "Uplift, singly", ours[singles], Target(1.5)) for shape in bundles),
    ]
