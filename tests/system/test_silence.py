"""PostgreSQL stands still, with short times. `tests/wide` has the real ones and a frozen worker."""

from pathlib import Path

from tests.system.silence import Times, postgresql_stands_still


def test_while_postgresql_is_frozen_no_live_lease_is_taken(tmp_path: Path) -> None:
    postgresql_stands_still(tmp_path, Times(silence=2.0, frozen=6.0, attempt=30.0))
