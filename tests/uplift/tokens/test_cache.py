"""How long a token is taken from the cache."""

from uuid import uuid4

import pytest

from uplift.tokens.cache import TokenCache
from uplift.tokens.person import AccessToken

ALICE = uuid4()
TOKEN = AccessToken("secret", 3)


@pytest.mark.parametrize(("good_for", "used_for"), [(2.0, 2.0), (7200.0, 5.0)])
def test_a_token_is_used_while_it_is_good_but_no_longer_than_five_seconds(
    good_for: float, used_for: float
) -> None:
    now = 1000.0
    cache = TokenCache(now=lambda: now)
    cache.put(ALICE, TOKEN, good_for)

    now += used_for - 0.1
    assert cache.get(ALICE) is TOKEN
    assert cache.get(uuid4()) is None
    now += 0.1
    assert cache.get(ALICE) is None


def test_a_dropped_token_is_gone() -> None:
    cache = TokenCache()
    cache.put(ALICE, TOKEN, 60.0)
    cache.drop(ALICE)
    cache.drop(ALICE)
    assert cache.get(ALICE) is None


def test_a_full_cache_starts_empty_again() -> None:
    cache = TokenCache()
    cache.put(ALICE, TOKEN, 60.0)
    others = [uuid4() for _ in range(1000)]
    for other in others:
        cache.put(other, TOKEN, 60.0)
    assert cache.get(ALICE) is None
    assert cache.get(others[-1]) is TOKEN
