"""Flower's addresses, as `uplift flower` leaves them."""

import subprocess
from pathlib import Path

from flower.urls import handlers

from tests.worker.entries import FLOWER, command
from uplift.worker import flower


def test_addresses_that_need_no_login_do_not_exist() -> None:
    addresses = {flower.address_of(each) for each in handlers}
    # If a new version of Flower renames them, nothing is closed.
    assert addresses >= flower.CLOSED
    before = list(handlers)
    try:
        flower.close_open_addresses()
        left = {flower.address_of(each) for each in handlers}
    finally:
        handlers[:] = before
    assert left == addresses - flower.CLOSED


def test_a_login_in_a_file_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    done = subprocess.run(
        command(FLOWER),
        env={"FLOWER_BASIC_AUTH_FILE": str(tmp_path / "missing")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Flower does not start: The file that FLOWER_BASIC_AUTH_FILE names" in done.stderr
