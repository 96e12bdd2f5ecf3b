"""When a refused token is not refreshed again."""

from uuid import uuid4

import pytest

from uplift.errors import TokenUnavailable
from uplift.tokens.refusals import Refusals


def test_after_a_replacement_the_user_waits_a_minute() -> None:
    now = 1000.0
    refusals, alice = Refusals(now=lambda: now), uuid4()
    refusals.check(alice)
    refusals.replaced(alice)
    refusals.check(uuid4())

    now += 20
    with pytest.raises(TokenUnavailable) as raised:
        refusals.check(alice)
    assert (raised.value.code, raised.value.retry_after) == ("fresh_token_refused", 40.0)

    now += 40
    refusals.check(alice)
