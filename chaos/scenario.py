"""What will happen in a storm, all of it decided by its seed. Pure.

The moments are seeded; which upload a moment meets is not, since processes and their kernel take
the time that they take. So a seed repeats the storm, not its every consequence.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from chaos.records import Version
from chaos.terms import Terms

_MAX_BATCH = 30
_BATCHES = 0.05  # of the steps: nearly half of the uploads
_MAX_DOWN = 1.5  # seconds until what was killed is started again
_SERVERS = ("redis", "postgres")
# Where delays beyond the clocks show.
_LATE = ("late commits", "searches lag", "cutting after the commit", "looks fail", "slow")


@dataclass(frozen=True, slots=True)
class Step:
    """What a device sends at one time: one version, or several as a batch.

    `at` is in seconds from the start. `key` is its Idempotency-Key. `again` has it sent once more
    after its 202, as an app that lost its memory does; `twin` has it sent twice at once.
    """

    at: float
    versions: tuple[Version, ...]
    key: str | None = None
    again: bool = False
    twin: bool = False


@dataclass(frozen=True, slots=True)
class Harm:
    """What is done to the system at a moment: kill, start, freeze, thaw, flush or weather."""

    at: float
    kind: str
    target: str = ""
    rules: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Script:
    """A whole storm: what each device sends, and what is done meanwhile."""

    devices: tuple[tuple[Step, ...], ...]
    harms: tuple[Harm, ...]
    processes: tuple[str, ...] = field(default=())


def write(terms: Terms) -> Script:
    """The script of a storm."""
    dice = random.Random(terms.seed)  # noqa: S311  it repeats storms, and keeps no secret
    share, rest = divmod(terms.uploads, terms.devices)
    devices = tuple(
        tuple(_steps(dice, terms, device, share + (device < rest)))
        for device in range(terms.devices)
    )
    processes = processes_of(terms)
    harms = sorted(_harms(dice, terms, processes), key=lambda harm: harm.at)
    return Script(devices, tuple(harms), processes)


def processes_of(terms: Terms) -> tuple[str, ...]:
    """The processes that run: of most kinds two, so that one has somebody to race with."""
    seconds = ("web-2", "worker-2", "bulk-2") if terms.second_processes else ("worker-2",)
    return ("web", "worker", "bulk", "beat", *seconds)


def kind_of(process: str) -> str:
    """`worker-2` is a worker."""
    return process.removesuffix("-2")


def _steps(dice: random.Random, terms: Terms, device: int, uploads: int) -> Iterator[Step]:
    planned = sorted(_planned(dice, terms, device, uploads), key=lambda plan: plan[0])
    while planned:
        together = dice.randint(2, _MAX_BATCH) if dice.random() < _BATCHES else 1
        together = _until_a_record_returns(planned[:together])
        taken, planned = planned[:together], planned[together:]
        keyed = together == 1 and dice.random() < 0.5
        yield Step(
            at=taken[0][0],
            versions=tuple(version for _, version in taken),
            key=f"{dice.getrandbits(128):032x}" if keyed else None,
            again=dice.random() < 0.06,
            twin=dice.random() < 0.04,
        )


def _until_a_record_returns(planned: list[tuple[float, Version]]) -> int:
    """How many of these come before a second version of one of them.

    Sent again, a batch with both would begin with the older one: a change back, by all that the
    API can know. A device sends what it has, which is one version of each.
    """
    seen: set[str] = set()
    for number, (_, version) in enumerate(planned):
        if version.record in seen:
            return number
        seen.add(version.record)
    return len(planned)


def _planned(
    dice: random.Random, terms: Terms, device: int, uploads: int
) -> Iterator[tuple[float, Version]]:
    """So many versions of records that are this device's alone, and when it has them."""
    user = f"person-{device % terms.users}"
    record = left = 0
    at = 0.0
    for number in range(uploads):
        if not left:
            record, left, version = number, dice.choice((1, 1, 1, 1, 2, 2, 3)), 0
            at = dice.uniform(0, terms.seconds)
            valid = dice.random() > 0.03
            # Some 1upHealth can only be asked for where it keeps ids, or not at all.
            identified = dice.random() > 0.1
        version, left = version + 1, left - 1
        yield (
            at,
            Version(
                user=user,
                record=f"d{device}-r{record}",
                number=version,
                valid=valid,
                identified=identified,
                findable=identified or terms.ids == "kept",
            ),
        )
        # The next while this one is being sent, or long after it was delivered.
        at += dice.choice((0.1, 3.0, 10.0, 20.0)) * dice.random()


def _harms(dice: random.Random, terms: Terms, processes: tuple[str, ...]) -> Iterator[Harm]:
    # Servers half as often as each of the others: while Postgres is away nothing else happens.
    victims = [*processes, *processes, *_SERVERS]
    dice.shuffle(victims)
    for number, victim in zip(range(terms.kills), cycle(victims), strict=False):
        at = (number + dice.random()) * terms.kill_every
        yield Harm(at, "kill", victim)
        yield Harm(at + dice.uniform(0.1, _MAX_DOWN), "start", victim)
    for at, victim in _at_times(dice, terms, 15.0, [*processes, "redis"]):
        yield Harm(at, "freeze", victim)
        yield Harm(at + terms.frozen, "thaw", victim)
    for at, _ in _at_times(dice, terms, 20.0, ["redis"]):
        yield Harm(at, "flush", "redis")
    skies = weathers(terms)
    if terms.beyond:
        skies = {name: skies[name] for name in _LATE}
    # Short storms have every weather, too.
    every = min(6.0, terms.seconds / len(skies))
    for at, name in _at_times(dice, terms, every, list(skies)):
        yield Harm(at, "weather", name, tuple(_seeded(dice, skies[name])))
        # In bad weather hardly anything is sent, and what is not sent is never in danger.
        yield Harm(at + dice.uniform(0.3, 0.8) * every, "weather", "calm")


def _at_times(
    dice: random.Random, terms: Terms, every: float, names: list[str]
) -> Iterator[tuple[float, str]]:
    """One of each name in turn, at a random moment of each span; at least once each storm."""
    order = cycle(dice.sample(names, len(names)))
    spans = max(1, int(terms.seconds / every))
    for span, name in zip(range(spans), order, strict=False):
        yield (span + dice.random()) * terms.seconds / spans, name


def _seeded(dice: random.Random, rules: tuple[dict[str, Any], ...]) -> Iterator[dict[str, Any]]:
    for rule in rules:
        yield rule if rule["kind"] == "expire_tokens" else {**rule, "seed": dice.getrandbits(31)}


def weathers(terms: Terms) -> dict[str, tuple[dict[str, Any], ...]]:
    """How the simulated 1upHealth may behave for a while, as docs/sandbox.md writes it."""
    write, any_fhir = {"api": "fhir", "method": "POST"}, {"api": "fhir"}

    def sometimes(probability: float, kind: str, **fields: Any) -> dict[str, Any]:
        return {"kind": kind, "match": write, "probability": probability, **fields}

    return {
        "busy": (
            sometimes(0.3, "too_many_requests", retry_after=1),
            sometimes(0.2, "too_many_requests"),
        ),
        "failing": (sometimes(0.4, "status", status=503),),
        "failing after the commit": (sometimes(0.4, "status", status=504, commit=True),),
        "cutting": (sometimes(0.3, "cut"), sometimes(0.3, "reset")),
        "cutting after the commit": (
            sometimes(0.3, "cut", commit=True),
            sometimes(0.3, "reset", commit=True),
        ),
        "half answers": (sometimes(0.4, "half_answer"),),
        "stalling": (
            sometimes(0.15, "stall", seconds=60),
            sometimes(0.15, "stall", seconds=60, commit=True),
        ),
        "late commits": (
            sometimes(0.25, "cut", commit_after=terms.late),
            sometimes(0.25, "status", status=504, commit_after=terms.late / 2),
        ),
        "slow": (sometimes(1.0, "slow", seconds=0.4), sometimes(0.2, "slow", seconds=1.0)),
        "looks fail": (
            sometimes(0.4, "cut", commit=True),
            {
                "kind": "status",
                "status": 502,
                "probability": 0.4,
                "match": {**any_fhir, "method": "GET"},
            },
        ),
        "searches lag": (
            {"kind": "index_lag", "seconds": terms.lag},
            sometimes(0.5, "cut", commit=True),
        ),
        "a login page": (sometimes(0.3, "html"), sometimes(0.2, "error_body", commit=True)),
        "tokens end": ({"kind": "expire_tokens"},),
        "down": ({"kind": "status", "status": 503, "match": any_fhir},),
    }
