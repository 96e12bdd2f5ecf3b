"""Processes and servers that stand still for 40 seconds, with the times of a deployment."""

from pathlib import Path

from tests.system.silence import Times, a_worker_stands_still, postgresql_stands_still


def test_what_a_worker_had_that_was_frozen_for_40_seconds_is_not_sent_twice(
    tmp_path: Path,
) -> None:
    a_worker_stands_still(tmp_path, Times(silence=15.0, frozen=40.0, attempt=60.0))


def test_while_postgresql_is_frozen_for_40_seconds_no_live_lease_is_taken(tmp_path: Path) -> None:
    postgresql_stands_still(tmp_path, Times(silence=15.0, frozen=40.0, attempt=60.0))
