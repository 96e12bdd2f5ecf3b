"""Flower's addresses, as `uplift flower` leaves them."""

from flower.urls import handlers

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
