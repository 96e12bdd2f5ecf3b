"""The short form of the kill storm; `make storm` is the long one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.run import blow
from chaos.terms import Terms

SHORT = Terms(
    uploads=160,
    kills=8,
    seed=3,
    ids="assigned",
    kill_every=1.2,
    users=3,
    devices=12,
    second_processes=False,
    attempt=2.0,
    lease=4.0,
    settle=2.0,
    index_lag=1.0,
    patience=30.0,
    give_up_waiting=90.0,
)


@pytest.mark.timeout(240)  # seconds, for a machine that does much else
def test_a_short_storm_loses_doubles_and_forgets_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    aftermath = blow(SHORT, tmp_path / "storm", lambda _: None)
    report = "\n".join(aftermath.report)
    record_property("table", report)
    assert aftermath.holds, report
