"""Flower's addresses, as `python -m uplift.worker.flower` leaves them."""

from flower.urls import handlers

from uplift.worker import flower


def test_what_answers_without_a_login_is_not_there() -> None:
    addresses = {flower._address(each) for each in handlers}
    # Should Flower call them otherwise one day, nothing would be closed.
    assert addresses >= flower.CLOSED
    before = list(handlers)
    try:
        flower.close_open_addresses()
        left = {flower._address(each) for each in handlers}
    finally:
        handlers[:] = before
    assert left == addresses - flower.CLOSED
