"""A short chaos run at a server like HAPI, in which the ledger goes back in time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.run import run
from tests.system.test_chaos import SHORT


@pytest.mark.timeout(300)  # seconds, for a machine that does much else
def test_what_a_restore_and_kills_leave_is_true(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    result = run(replace(SHORT, like="hapi", restores=True), tmp_path / "chaos", lambda _: None)
    report = "\n".join(result.report)
    record_property("table", report)
    assert result.holds, report
