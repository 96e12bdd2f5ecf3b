"""Whether a tree is slower than a commit."""

import pytest

from bench.against.judge import Comparison, conclusion
from bench.figures import Spread


def compared(
    now: tuple[float, ...],
    *,
    before: tuple[float, ...] = (100.0, 100.0, 100.0),
    again: tuple[float, ...] = (100.0, 100.0, 100.0),
    less_is_faster: bool = False,
) -> Comparison:
    return Comparison(
        section="intake",
        what="accepted/s",
        unit="/s",
        less_is_faster=less_is_faster,
        before=before,
        now=now,
        again=again,
    )


@pytest.mark.parametrize(
    ("now", "again", "verdict"),
    [
        ((120.0, 110.0, 115.0), (100.0,) * 3, "not slower: 1.15 is at least 0.97"),
        ((97.0, 97.0, 97.0), (100.0,) * 3, "not slower: 0.97 is at least 0.97"),
        ((50.0, 98.0, 99.0), (100.0,) * 3, "not slower: 0.98 is at least 0.97"),
        (
            (90.0, 95.0, 96.0),
            (94.0, 100.0, 103.0),
            "not slower: 0.95 is within the noise of 0.94 to 1.03",
        ),
        (
            (90.0, 95.0, 96.0),
            (96.0, 100.0, 103.0),
            "SLOWER: 0.95 is below 0.97 and below the noise of 0.96 to 1.03",
        ),
        # A commit that was faster against itself proves no noise below 0.97.
        (
            (96.0, 96.0, 96.0),
            (101.0, 102.0, 104.0),
            "SLOWER: 0.96 is below 0.97 and below the noise of 1.01 to 1.04",
        ),
    ],
)
def test_a_tree_is_not_slower_by_the_median_ratio_or_within_the_noise(
    now: tuple[float, ...], again: tuple[float, ...], verdict: str
) -> None:
    comparison = compared(now, again=again)

    assert comparison.verdict == verdict
    assert comparison.not_slower is not verdict.startswith("SLOWER")


def test_ratios_are_of_the_same_round() -> None:
    # The machine was busy in the second round, for every side.
    comparison = compared(
        (100.0, 50.0, 110.0), before=(100.0, 50.0, 100.0), again=(90.0, 50.0, 100.0)
    )

    assert comparison.ratio == Spread(1.0, 1.0, 1.1)
    assert comparison.noise == Spread(1.0, 0.9, 1.0)


def test_the_ratio_of_a_latency_is_the_other_way_round() -> None:
    comparison = compared((20.0, 20.0), before=(10.0, 10.0), again=(8.0, 10.0), less_is_faster=True)

    assert comparison.ratio.median == 0.5
    assert comparison.noise == Spread(1.125, 1.0, 1.25)
    assert not comparison.not_slower


def test_the_conclusion_names_every_slower_figure() -> None:
    good, bad = compared((100.0,) * 3), compared((50.0,) * 3)

    assert conclusion([good, good]) == "Not slower in any of 2 figures."
    assert conclusion([good, bad]) == "SLOWER in 1 of 2 figures: intake: accepted/s."


def test_the_json_of_a_comparison_has_rounds_ratio_noise_and_verdict() -> None:
    shown = compared((98.0,) * 3).to_json()

    assert shown["now"] == (98.0,) * 3
    assert (shown["ratio"]["median"], shown["noise"]["low"]) == (0.98, 1.0)
    assert shown["not_slower"]
