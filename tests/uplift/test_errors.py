"""The errors, and the drawing of them."""

import re

from uplift import errors


def test_the_drawing_at_the_top_shows_every_error_and_no_other() -> None:
    drawn = re.findall(r"^(?:[├└]── )?([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    defined = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert [name for name in drawn if name in defined] == defined


def test_every_error_can_be_caught_as_one_of_uplifts() -> None:
    for value in vars(errors).values():
        if isinstance(value, type):
            assert issubclass(value, errors.UpliftError)


def test_an_unavailable_upstream_can_say_when_to_come_back() -> None:
    assert errors.UpstreamUnavailable("later").retry_after is None
    assert errors.UpstreamUnavailable("later", retry_after=3.0).retry_after == 3.0
