"""Measures all sides in turn: intake, delivery, latency.

Every side gets the same load from this tree's clients and delivers to this tree's stand-in.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.against.claims import compare_claims
from bench.against.judge import Comparison
from bench.against.side import Side, open_sides
from bench.against.work_tree import this_tree, work_tree
from bench.delivery import IN_FLIGHT
from bench.figures import percentile
from bench.intake import CONNECTIONS, LINES, SECONDS, post_batch
from bench.latency import UPLOADS, one_by_one
from bench.load import load
from bench.plan import Plan
from bench.resources import bodies
from bench.testbed import USERS, upstream
from bench.upstream import Upstream, rate

_BACKLOG = 4000
_BATCHES = 8  # of a backlog, each of another user
_LATENCIES = (0, 200)
_WAIT_SECONDS = 120.0
_WARM_UP = 0.2  # of a round

Say = Callable[[str], None]
Measure = Callable[[Side, Plan], Sequence[float]]
Rounds = dict[str, list[Sequence[float]]]
"""What was measured in each round, by the name of the side."""


def compare(commit: str, sections: Sequence[str], plan: Plan, say: Say) -> list[Comparison]:
    """Measure this tree against a commit. Raises what `work_tree` raises."""
    before = work_tree(commit, say)
    # The commit runs twice, with all its processes: the difference between both is noise.
    trees = {"before": before, "now": this_tree(), "again": before}
    found: list[Comparison] = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        upstream(Path(name)) as stand_in,
        open_sides(trees, Path(name), stand_in) as sides,
    ):
        for section in sections:
            for side in sides:
                side.clear()  # or its workers would deliver what an earlier section left
            found += SECTIONS[section](sides, stand_in, plan, say)
    return found


def _intake(sides: list[Side], _: Upstream, plan: Plan, say: Say) -> list[Comparison]:
    def single(side: Side, plan: Plan) -> list[float]:
        side.clear()
        found = load(
            side.port,
            "/v1/uploads",
            side.label(),
            side.key,
            seconds=max(SECONDS * plan.scale, 0.5),
            connections=CONNECTIONS,
            users=USERS,
        )
        return [found.per_second]

    def batch(side: Side, plan: Plan) -> list[float]:
        side.clear()
        return [post_batch(side.api_url, side.key, bodies(side.label(), plan.of(LINES)))]

    return [
        _rates("intake", what, _alternate(sides, measure, plan, say, f"intake, {what}"))
        for what, measure in (("accepted/s, single", single), ("records/s, batch", batch))
    ]


def _delivery(sides: list[Side], stand_in: Upstream, plan: Plan, say: Say) -> list[Comparison]:
    found = []
    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(side.working("bulk", max_in_flight=IN_FLIGHT))
        for latency in _LATENCIES:

            def measure(side: Side, plan: Plan, latency: int = latency) -> list[float]:
                return [_drain(side, stand_in, plan.of(_BACKLOG), latency)]

            what = f"delivered/s, upstream {latency} ms"
            rounds = _alternate(sides, measure, plan, say, f"delivery, {what}")
            found.append(_rates("delivery", what, rounds))
    return found


def _drain(side: Side, stand_in: Upstream, count: int, latency: int) -> float:
    """Creates a second while the worker drains a backlog of about `count` uploads.

    Raises TimeoutError unless all are delivered, AssertionError if other requests came.
    """
    each = count // _BATCHES
    delivered = side.delivered()
    stand_in.reset(latency)
    with side.frozen("bulk"):
        for number in range(_BATCHES):
            resources = bodies(side.label(), each)
            post_batch(side.api_url, side.key, resources, user=f"user-{number}")
    counts = stand_in.wait(each * _BATCHES, _WAIT_SECONDS)
    side.wait_delivered(delivered + each * _BATCHES, _WAIT_SECONDS)
    sent = stand_in.counts()
    if sent.arrived != each * _BATCHES or sent.other_requests:
        raise AssertionError(f"{side.name}: {sent} for {each * _BATCHES} uploads.")
    return rate(counts)


def _latency(sides: list[Side], stand_in: Upstream, plan: Plan, say: Say) -> list[Comparison]:
    def measure(side: Side, plan: Plan) -> list[float]:
        address, count = f"{side.api_url}/v1/uploads", plan.of(UPLOADS)
        return one_by_one(stand_in, address, side.key, side.ledger, side.label(), count)

    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(side.working("uploads", max_in_flight=IN_FLIGHT))
        rounds = _alternate(sides, measure, plan, say, "latency")

    def milliseconds(name: str, percent: int) -> tuple[float, ...]:
        return tuple(percentile(seconds, percent) * 1000 for seconds in rounds[name])

    return [
        Comparison(
            section="latency",
            what=f"submit to delivered without upstream, p{percent}",
            unit="ms",
            less_is_faster=True,
            before=milliseconds("before", percent),
            now=milliseconds("now", percent),
            again=milliseconds("again", percent),
        )
        for percent in (50, 99)
    ]


def _claims(sides: list[Side], _: Upstream, plan: Plan, say: Say) -> list[Comparison]:
    return compare_claims(sides, plan, say)


SECTIONS = {"intake": _intake, "delivery": _delivery, "latency": _latency, "claims": _claims}


def _alternate(sides: list[Side], measure: Measure, plan: Plan, say: Say, what: str) -> Rounds:
    """Measure all sides in each round. Each side goes first in turn."""
    for side in sides:
        measure(side, replace(plan, scale=plan.scale * _WARM_UP))
    rounds: Rounds = {side.name: [] for side in sides}
    for number in range(plan.rounds):
        say(f"{what}: round {number + 1} of {plan.rounds}")
        first = number % len(sides)
        for side in (*sides[first:], *sides[:first]):
            rounds[side.name].append(measure(side, plan))
    return rounds


def _rates(section: str, what: str, rounds: Rounds) -> Comparison:
    def each(name: str) -> tuple[float, ...]:
        return tuple(value for (value,) in rounds[name])

    return Comparison(
        section=section,
        what=what,
        unit="/s",
        before=each("before"),
        now=each("now"),
        again=each("again"),
    )
