"""Whether a record waits for what it refers to."""

from uuid import UUID

import pytest

from uplift.delivery.targets import must_wait
from uplift.ledger.reference_targets import Target


def target(*, receipt: bytes | None = None, unfinished: bool = True, waits: bool = False) -> Target:
    return Target(b"key", UUID(int=1), receipt, unfinished, waits)


@pytest.mark.parametrize("waited", [None, 0.0, 59.9])
def test_it_waits_for_what_is_on_its_way_and_not_there(waited: float | None) -> None:
    assert must_wait([target(unfinished=False), target()], waited=waited, limit=60)


@pytest.mark.parametrize("waited", [60.0, 3600.0])
def test_it_waits_no_longer_than_the_limit(waited: float) -> None:
    assert not must_wait([target()], waited=waited, limit=60)


@pytest.mark.parametrize(
    "other",
    [
        target(unfinished=False),  # rejected, refused, expired
        target(receipt=b"sealed"),  # an older version is there
        target(waits=True),  # of two that refer to each other, one goes first
    ],
)
def test_it_does_not_wait_for_others(other: Target) -> None:
    assert not must_wait([other], waited=None, limit=60)


def test_it_does_not_wait_for_nothing() -> None:
    assert not must_wait([], waited=None, limit=60)
