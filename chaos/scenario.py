"""What will happen in a chaos run, all of it decided by the seed. Pure.

The seed decides when each fault happens. Which upload it hits depends on how fast processes and
their kernel are. So a seed repeats the faults, not every consequence of them.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from chaos.lasting import LASTING
from chaos.options import Options
from chaos.records import POISON, Version
from uplift.destinations.destination import Meaning
from uplift.destinations.presets import PRESETS

API = "api"
STANDBY, DUMP = "standby", "backup"
FIRST = (API, "worker", "bulk", "beat")
"""One process of each kind, by their names in `uplift.cli.local.system.PROCESSES`."""

_POISONOUS = 0.01  # of the records, where one refuses a whole Bundle
_MAX_BATCH = 30
_BATCHES = 0.05  # of the steps: nearly half of the uploads
_HEAVY = 0.9  # of all uploads
_HEAVY_BATCHES = 0.5
_HEAVY_TIME = 0.2  # of the run
_MAX_DOWN = 1.5  # seconds until a killed process is started again
_SERVERS = ("redis", "postgres")
_LASTING_EVERY = 12.0
_LASTING_SECONDS = (3.0, 6.0)
# Faults that delay, so that longer delays show.
_DELAYS = ("late commits", "searches lag", "cut after the commit", "look-ups fail", "slow")


@dataclass(frozen=True, slots=True)
class Step:
    """What a device sends at one time: one version, or several as a batch.

    `at` is in seconds from the start. `key` is its Idempotency-Key. `again`: it is sent once more
    after its 202, as an app does that lost its memory. `twin`: it is sent twice at once.
    """

    at: float
    versions: tuple[Version, ...]
    key: str | None = None
    again: bool = False
    twin: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to the system at a time: kill, start, freeze, thaw, flush, upstream; back up,
    promote, restore, add people; or the begin or end of a fault of `chaos.lasting`.

    `upstream`: the simulated 1upHealth behaves by `rules` from then on, and `target` names them.
    """

    at: float
    kind: str
    target: str = ""
    rules: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole run: what each device sends, which faults happen, and which processes run.

    `late` are the people who are added after the backup that is restored.
    """

    devices: tuple[tuple[Step, ...], ...]
    faults: tuple[Fault, ...]
    processes: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


def write(options: Options) -> Scenario:
    """The scenario of a run."""
    dice = random.Random(options.seed)  # noqa: S311  it repeats runs, and keeps no secret
    devices = tuple(
        tuple(_steps(dice, options, device, uploads))
        for device, uploads in enumerate(_shares(options))
    )
    processes = processes_of(options)
    faults = sorted(_faults(dice, options, processes), key=lambda fault: fault.at)
    late = options.people[-options.late_users :] if options.restores else ()
    return Scenario(devices, tuple(faults), processes, late)


HEAVY_PERSON = "person-0"


def is_heavy(options: Options, device: int) -> bool:
    """Whether it is a device of the person who has nine tenths of all uploads."""
    return options.heavy and device % options.users == 0


def _shares(options: Options) -> list[int]:
    """How many uploads each device sends."""
    heavy = [device for device in range(options.devices) if is_heavy(options, device)]
    others = [device for device in range(options.devices) if not is_heavy(options, device)]
    of_heavy = round(options.uploads * _HEAVY) if heavy else 0
    shares = dict.fromkeys(range(options.devices), 0)
    for devices, uploads in ((heavy, of_heavy), (others, options.uploads - of_heavy)):
        for number, device in enumerate(devices):
            shares[device] = uploads // len(devices) + (number < uploads % len(devices))
    return [shares[device] for device in range(options.devices)]


def processes_of(options: Options) -> tuple[str, ...]:
    """The processes that run. Most kinds have two, so that they race with each other."""
    twice = (API, "worker", "bulk") if options.second_processes else ("worker",)
    return (*FIRST, *(f"{name}-2" for name in twice))


def kind_of(process: str) -> str:
    """`worker-2` is a worker."""
    return process.removesuffix("-2")


def _steps(dice: random.Random, options: Options, device: int, uploads: int) -> Iterator[Step]:
    planned = sorted(_planned(dice, options, device, uploads), key=lambda plan: plan[0])
    batches = _HEAVY_BATCHES if is_heavy(options, device) else _BATCHES
    while planned:
        together = dice.randint(2, _MAX_BATCH) if dice.random() < batches else 1
        together = _before_a_second_version(planned[:together])
        sent, planned = planned[:together], planned[together:]
        keyed = together == 1 and dice.random() < 0.5
        yield Step(
            at=sent[0][0],
            versions=tuple(version for _, version in sent),
            key=f"{dice.getrandbits(128):032x}" if keyed else None,
            again=dice.random() < 0.06,
            twin=dice.random() < 0.04,
        )


def _before_a_second_version(planned: list[tuple[float, Version]]) -> int:
    """How many of these come before a second version of one of their records.

    If a batch with two versions of a record is sent again, it starts with the older one. The API
    cannot know that this is no change back. A device sends one version of each record: the newest.
    """
    seen: set[str] = set()
    for number, (_, version) in enumerate(planned):
        if version.record in seen:
            return number
        seen.add(version.record)
    return len(planned)


def _planned(
    dice: random.Random, options: Options, device: int, uploads: int
) -> Iterator[tuple[float, Version]]:
    """This many versions of records that only this device has, each with its time."""
    user = f"person-{device % options.users}"
    record = left = 0
    at = 0.0
    until = options.seconds * (_HEAVY_TIME if is_heavy(options, device) else 1.0)
    for number in range(uploads):
        if not left:
            record, left, version = number, dice.choice((1, 1, 1, 1, 2, 2, 3)), 0
            at = dice.uniform(0, until)
            valid = dice.random() > 0.03
            # A look-up finds a record without identifier only where 1upHealth keeps ids.
            identified = dice.random() > 0.1
            poisonous = options.has_bundles and valid and dice.random() < _POISONOUS
        version, left = version + 1, left - 1
        yield (
            at,
            Version(
                user=user,
                record=f"d{device}-r{record}",
                number=version,
                valid=valid,
                identified=identified,
                findable=identified or options.ids == "kept",
                poisonous=poisonous,
            ),
        )
        # The next version comes while this one is being sent, or long after its delivery.
        at += dice.choice((0.1, 3.0, 10.0, 20.0)) * dice.random()


def _faults(dice: random.Random, options: Options, processes: tuple[str, ...]) -> Iterator[Fault]:
    # Servers half as often as each process: while PostgreSQL is away nothing else happens.
    victims = [*processes, *processes, *_SERVERS]
    dice.shuffle(victims)
    for number, victim in zip(range(options.kills), cycle(victims), strict=False):
        at = (number + dice.random()) * options.kill_every
        yield Fault(at, "kill", victim)
        yield Fault(at + dice.uniform(0.1, _MAX_DOWN), "start", victim)
    for at, victim in _at_times(dice, options, 15.0, [*processes, "redis"]):
        yield Fault(at, "freeze", victim)
        yield Fault(at + options.frozen, "thaw", victim)
    for at, _ in _at_times(dice, options, 20.0, ["redis"]):
        yield Fault(at, "flush", "redis")
    for at, name in _at_times(dice, options, _LASTING_EVERY, list(LASTING)):
        yield Fault(at, "begin", name)
        yield Fault(at + dice.uniform(*_LASTING_SECONDS), "end", name)
    if options.restores:
        yield from _restores(dice, options)
    upstream = upstream_faults(options)
    if options.beyond:
        upstream = {name: upstream[name] for name in _DELAYS if name in upstream}
    # Short runs have every fault of the upstream, too.
    every = min(6.0, options.seconds / len(upstream))
    for at, name in _at_times(dice, options, every, list(upstream)):
        yield Fault(at, "upstream", name, tuple(_seeded(dice, upstream[name])))
        # While the upstream fails, little is sent, and only what is sent can be lost or doubled.
        yield Fault(at + dice.uniform(0.3, 0.8) * every, "upstream", "healthy")


def _restores(dice: random.Random, options: Options) -> Iterator[Fault]:
    """A standby without the last seconds is promoted. Later a backup is restored, from before some
    people were added."""
    at = dice.uniform(0.2, 0.3) * options.seconds
    yield Fault(at, "back up", STANDBY)
    yield Fault(at + dice.uniform(2.0, 5.0), "promote", STANDBY)
    at = dice.uniform(0.45, 0.5) * options.seconds
    yield Fault(at, "back up", DUMP)
    yield Fault(at + 1.0, "add people")
    at = dice.uniform(0.6, 0.7) * options.seconds
    yield Fault(at, "restore", DUMP)
    yield Fault(at + 0.1, "add people")


def _at_times(
    dice: random.Random, options: Options, every: float, names: list[str]
) -> Iterator[tuple[float, str]]:
    """The names in turn, each at a random time of its span; at least one in each run."""
    order = cycle(dice.sample(names, len(names)))
    spans = max(1, int(options.seconds / every))
    for span, name in zip(range(spans), order, strict=False):
        yield (span + dice.random()) * options.seconds / spans, name


def _seeded(dice: random.Random, rules: tuple[dict[str, Any], ...]) -> Iterator[dict[str, Any]]:
    for rule in rules:
        yield rule if rule["kind"] == "expire_tokens" else {**rule, "seed": dice.getrandbits(31)}


def upstream_faults(options: Options) -> dict[str, tuple[dict[str, Any], ...]]:
    """How the destination can fail for a while, by name. docs/sandbox.md has the rules."""
    method = "PUT" if options.puts else "POST"
    write, any_fhir = {"api": "fhir", "method": method}, {"api": "fhir"}

    def sometimes(probability: float, kind: str, **fields: Any) -> dict[str, Any]:
        return {"kind": kind, "match": write, "probability": probability, **fields}

    both: dict[str, tuple[dict[str, Any], ...]] = {
        "busy": (
            sometimes(0.3, "too_many_requests", retry_after=1),
            sometimes(0.2, "too_many_requests"),
        ),
        "failing": (sometimes(0.4, "status", status=503),),
        "failing after the commit": (sometimes(0.4, "status", status=504, commit=True),),
        "cut": (sometimes(0.3, "cut"), sometimes(0.3, "reset")),
        "cut after the commit": (
            sometimes(0.3, "cut", commit=True),
            sometimes(0.3, "reset", commit=True),
        ),
        "half responses": (sometimes(0.4, "half_answer"),),
        "stalling": (
            sometimes(0.15, "stall", seconds=60),
            sometimes(0.15, "stall", seconds=60, commit=True),
        ),
        "late commits": (
            sometimes(0.25, "cut", commit_after=options.late),
            sometimes(0.25, "status", status=504, commit_after=options.late / 2),
        ),
        "slow": (sometimes(1.0, "slow", seconds=0.4), sometimes(0.2, "slow", seconds=1.0)),
        "look-ups fail": (
            sometimes(0.4, "cut", commit=True),
            {
                "kind": "status",
                "status": 502,
                "probability": 0.4,
                "match": {**any_fhir, "method": "GET"},
            },
        ),
        "a login page": (sometimes(0.3, "html"), sometimes(0.2, "error_body", commit=True)),
        "unauthorized": (sometimes(0.5, "status", status=401),),
        "forbidden": (sometimes(0.5, "status", status=403),),
        "refusing": (sometimes(0.4, "status", status=400),),
        "always busy": (sometimes(0.9, "too_many_requests"),),
        "large headers": (
            sometimes(0.4, "status", status=503, headers={"X-Long": "x" * 20_000}),
            sometimes(0.3, "status", status=503, headers={"X-Long": "x" * 100_000}),
        ),
        "codings": (
            sometimes(0.5, "status", status=200, headers={"Content-Encoding": "gzip, gzip, gzip"}),
        ),
        "down": ({"kind": "status", "status": 503, "match": any_fhir},),
    }
    if options.puts:
        both["empty responses"] = (sometimes(0.4, "empty_answer"),)
        if PRESETS[options.like].on_conflict is not Meaning.REFUSED:
            both["lock conflicts"] = (sometimes(0.3, "lock_conflict"),)
        return _of_bundles_too(both, write) if options.has_bundles else both
    return {
        **both,
        "searches lag": (
            {"kind": "index_lag", "seconds": options.lag},
            sometimes(0.5, "cut", commit=True),
        ),
        "tokens end": ({"kind": "expire_tokens"},),
    }


def _of_bundles_too(
    faults: dict[str, tuple[dict[str, Any], ...]], write: dict[str, Any]
) -> dict[str, tuple[dict[str, Any], ...]]:
    """What happens to a write happens to a Bundle of them, which is posted."""
    bundle = {**write, "method": "POST"}
    return {
        name: (*rules, *({**rule, "match": bundle} for rule in rules if rule.get("match") == write))
        for name, rules in faults.items()
    } | {
        "entries out of order": (
            {"kind": "entries", "order": "shuffled", "match": bundle, "probability": 0.4},
            {"kind": "entries", "order": "missing", "match": bundle, "probability": 0.4},
        )
    }


def always(options: Options) -> tuple[dict[str, Any], ...]:
    """The rules of the destination that hold all the time."""
    if not options.has_bundles:
        return ()
    return ({"kind": "status", "status": 400, "match": {"api": "fhir", "contains": POISON}},)
