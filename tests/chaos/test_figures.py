"""The report of a chaos run."""

from collections.abc import Iterable

import pytest

from chaos import figures
from chaos.evidence import Evidence, Row
from chaos.options import Options
from chaos.scenario import HEAVY_PERSON


def rows(user: str, waits: Iterable[float | None]) -> list[Row]:
    return [
        Row(f"{user}-{n}", user, 1, "delivered", None, 1, False, False, waited)
        for n, waited in enumerate(waits)
    ]


def waits(evidence: Evidence) -> list[str]:
    report = figures.lines(evidence, {}, done={}, errors={}, seconds=1.0, settling=1.0)
    return [line for line in report if line.startswith("waits")]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 2.0), (0.95, 4.0), (1.0, 4.0), (0.25, 1.0)]
)
def test_a_rank_is_the_nearest(share: float, expected: float) -> None:
    assert figures.ranked([4.0, 1.0, 3.0, 2.0], share) == expected


def test_the_waits_of_all_are_told_together_unless_one_person_is_heavy() -> None:
    mine, others = rows(HEAVY_PERSON, [9.0, None, 30.0]), rows("person-1", [1.0, 2.0, 3.0])
    (all_,) = waits(Evidence(Options(), rows=[*mine, *others]))
    assert all_.endswith("p50 3.0 s, p95 30.0 s, longest 30.0 s (5 uploads)")
    told = waits(Evidence(Options(heavy=True), rows=[*mine, *others]))
    assert [line.partition("delivered")[2] for line in told] == [
        f" of {HEAVY_PERSON}: p50 9.0 s, p95 30.0 s, longest 30.0 s (2 uploads)",
        " of the others: p50 2.0 s, p95 3.0 s, longest 3.0 s (3 uploads)",
    ]
