"""When clocks are believed: they agree, and move by the time that passes."""

import math

import pytest

from uplift.clocks import Clocks, LedgerClock, Reading, Steadiness

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


@pytest.mark.parametrize(
    ("notes", "steady_for"),
    [
        ([(0, 0)], 0),
        ([(0, 0), (2, 2), (4, 4)], 4),
        ([(0, 0), (7, 7)], 7),
        ([(0, 0), (7.1, 7.1)], 0),  # PostgreSQL stood still, or this process did
        ([(0, 0), (2, 2), (20, 20), (22, 22)], 2),
        ([(0, 0), (2, 10)], 0),  # its clock jumped, by less than clocks may differ
        ([(0, 0), (2, -6)], 0),
        ([(0, 0), (2, -4)], 2),
    ],
)
def test_for_how_long_the_ledger_is_written_without_a_break(
    notes: list[tuple[float, float]], steady_for: float
) -> None:
    steadiness = Steadiness(7.0)
    assert [steadiness.note(elapsed, T + ledger) for elapsed, ledger in notes][-1] == steady_for


@pytest.mark.parametrize(
    ("notes", "right_for"),
    [
        ([(0, 0)], math.inf),
        ([(0, 29), (2, 31), (600, 629)], math.inf),  # they may differ, if they run alike
        ([(0, DAY)], 0),  # nobody knows since when
        ([(0, 0), (2, DAY)], 0),
        ([(0, 0), (600, 612)], 0),
        ([(0, DAY), (2, 2), (14, 14)], 12),
        ([(5, 5), (3, 3), (7, 7)], math.inf),  # claims end in another order
    ],
)
def test_since_when_the_clock_of_the_ledger_runs_like_ours(
    notes: list[tuple[float, float]], right_for: float
) -> None:
    clock = LedgerClock()
    found = [clock.note(elapsed, T + ledger, T + elapsed) for elapsed, ledger in notes]
    assert found[-1] == right_for
