"""Processes and servers that stand still, with short times. `tests/wide` has the real ones."""

from pathlib import Path

from tests.system.silence import Times, a_worker_stands_still, postgresql_stands_still


def test_what_a_frozen_worker_had_is_taken_and_it_sends_nothing_of_it(tmp_path: Path) -> None:
    a_worker_stands_still(tmp_path, Times(silence=2.0, frozen=8.0, attempt=14.0))


def test_while_postgresql_is_frozen_no_live_lease_is_taken(tmp_path: Path) -> None:
    postgresql_stands_still(tmp_path, Times(silence=2.0, frozen=6.0, attempt=30.0))
