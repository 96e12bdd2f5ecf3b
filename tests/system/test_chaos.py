"""A short chaos run; `make chaos` is the long one, and tests/wide has one at a server like HAPI."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.options import Options
from chaos.run import run
from tests.ledger_copies import LedgerCopies

SHORT = Options(
    uploads=120,
    kills=6,
    seed=3,
    ids="assigned",
    kill_every=1.2,
    users=3,
    devices=12,
    second_processes=False,
    restores=False,
    late_users=1,
    attempt=2.0,
    lease=4.0,
    settle=2.0,
    index_lag=1.0,
    patience=60.0,
    give_up_waiting=120.0,
)


@pytest.mark.timeout(240)  # seconds, for a machine that does much else
def test_a_short_chaos_run_leaves_nothing_lost_duplicated_or_unreported(
    tmp_path: Path, ledger_copies: LedgerCopies, record_property: Callable[[str, object], None]
) -> None:
    result = run(SHORT, ledger_copies.put(tmp_path / "chaos"), lambda _: None)
    report = "\n".join(result.report)
    record_property("table", report)
    assert result.holds, report
