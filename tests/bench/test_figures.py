"""Medians, ratios and targets of the benchmarks."""

import pytest

from bench.figures import Figure, Spread, Target, percentile


def _figure(ours: tuple[float, ...], theirs: tuple[float, ...], target: Target | None) -> Figure:
    return Figure(
        section="s", what="w", unit="/s", against="b", ours=ours, theirs=theirs, target=target
    )


def test_a_spread_is_the_median_with_the_lowest_and_the_highest() -> None:
    assert Spread.of([5.0, 1.0, 3.0]) == Spread(3.0, 1.0, 5.0)


def test_a_ratio_is_the_median_of_the_ratios_of_rounds_not_the_ratio_of_medians() -> None:
    # The machine was slow for both in the second round, and that changes nothing.
    figure = _figure((100.0, 10.0, 90.0), (200.0, 20.0, 100.0), None)

    assert figure.ratio == Spread(0.5, 0.5, 0.9)
    assert figure.reached is None


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        (Target(0.5), True),
        (Target(0.51), False),
        (Target(10.0, of="ours", bound="maximum"), True),
        (Target(9.9, of="ours", bound="maximum"), False),
    ],
)
def test_a_target_is_of_the_ratio_or_of_our_own_median(target: Target, *, reached: bool) -> None:
    assert _figure((9.0, 10.0, 11.0), (18.0, 20.0, 22.0), target).reached is reached


def test_the_json_of_a_figure_has_the_ratio_and_whether_the_target_is_reached() -> None:
    shown = _figure((2.0,), (4.0,), Target(0.6)).to_json()

    assert (shown["ratio"]["median"], shown["target"], shown["reached"]) == (0.5, "≥ 0.6", False)


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 50.0), (99, 99.0), (100, 100.0), (0.1, 1.0)]
)
def test_a_percentile_is_a_measured_value(percent: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], percent) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
