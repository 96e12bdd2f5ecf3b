"""The least rate of a body."""

import pytest

from uplift.api.least_rate import LeastRate


@pytest.mark.parametrize(
    ("arrived", "waited", "left"),
    [
        (0, 0, 30),
        (0, 10, 20),
        (3, 29, 1.03),
        (3, 31, 0),  # a byte each ten seconds ends soon after the first pause
        (100, 0, 30),  # no pause is longer, however much came before
        (10_000, 60, 30),  # a hundred seconds' worth came in one minute
        (10_000, 125, 5),
        (10_000, 130, 0),
    ],
)
def test_a_body_has_a_pause_and_then_a_rate(arrived: int, waited: float, left: float) -> None:
    rate = LeastRate(idle_seconds=30, bytes_per_second=100)
    assert rate.seconds_left(arrived, waited) == pytest.approx(left)
