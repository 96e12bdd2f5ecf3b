"""When clocks are believed: they agree, and move by the time that passes."""

import math

import pytest

from uplift.clocks import Clocks, Reading

DAY = 86_400.0
T = 1_700_000_000.0


def at(
    elapsed: float, *, ledger: float = 0.0, machine: float = 0.0, redis: float | None = 0.0
) -> Reading:
    """The clocks at that moment; each ahead by so much."""
    return Reading(
        elapsed,
        T + elapsed + ledger,
        T + elapsed + machine,
        None if redis is None else T + elapsed + redis,
    )


@pytest.mark.parametrize(
    ("readings", "right_for"),
    [
        ([at(0)], math.inf),
        ([at(0), at(2), at(4, redis=None), at(3600)], math.inf),
        ([at(0, ledger=29), at(2, ledger=1)], math.inf),  # they are corrected all the time
        ([at(0, ledger=DAY)], 0),
        ([at(0, machine=-DAY)], 0),
        ([at(0, redis=DAY)], 0),
        ([at(0, redis=DAY), at(2)], 0),  # it jumped back
        ([at(0, redis=DAY), at(2), at(12)], 10),
        # All of one machine together: only the time that passes shows it.
        ([at(0), at(2, ledger=DAY, machine=DAY, redis=DAY)], 0),
        ([at(0), at(2, ledger=-DAY, machine=-DAY, redis=-DAY)], 0),
    ],
)
def test_for_how_long_the_clocks_are_right(readings: list[Reading], right_for: float) -> None:
    clocks = Clocks()
    found = [clocks.note(reading) for reading in readings]
    assert found[-1] == right_for
