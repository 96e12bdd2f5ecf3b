"""Which uploads share a Bundle, and how large the next one may be: the whole table."""

from typing import Any
from uuid import UUID

import pytest

from tests.uplift.destinations.known import hapi
from uplift.delivery.sharing import (
    ANY,
    Candidate,
    Member,
    after_refused,
    after_unknown,
    apart,
    groups,
    limits_at_claim,
)
from uplift.destinations.destination import BundleType, Destination, OneUpLogin

FIFTY = hapi(bundle=BundleType.TRANSACTION, bundle_entries=50)


def due(count: int, **more: Any) -> list[Candidate]:
    values: dict[str, Any] = {"user_id": UUID(int=1), "fhir_version": "R4", "body_bytes": 10}
    return [Candidate(upload_id=UUID(int=n), **{**values, **more}) for n in range(count)]


def sizes(candidates: list[Candidate], destination: Destination = FIFTY) -> list[int]:
    found = groups(candidates, destination)
    assert sorted(id_ for group in found for id_ in group) == sorted(
        each.upload_id for each in candidates
    ), "each is in exactly one group"
    return [len(group) for group in found]


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        (due(1), [1]),
        (due(20), [20]),
        (due(120), [50, 50, 20]),
        (due(20, limit=6), [6, 6, 6, 2]),
        (due(3, limit=1), [1, 1, 1]),
        (due(3, alone=True), [1, 1, 1]),
        (due(4, body_bytes=400_000), [2, 2]),
        (due(3, body_bytes=5_000_000), [1, 1, 1]),
        (due(60, limit=80), [50, 10]),
    ],
)
def test_as_many_go_together_as_the_destination_and_each_limit_allow(
    candidates: list[Candidate], expected: list[int]
) -> None:
    assert sizes(candidates) == expected


def test_where_no_bundle_is_taken_each_goes_alone() -> None:
    assert sizes(due(3), hapi(bundle_entries=50)) == [1, 1, 1]


def test_a_bundle_has_one_fhir_version_and_one_login() -> None:
    mixed = [
        *due(2),
        Candidate(upload_id=UUID(int=9), user_id=UUID(int=1), fhir_version="DSTU2", body_bytes=1),
        Candidate(upload_id=UUID(int=8), user_id=UUID(int=2), fhir_version="R4", body_bytes=1),
    ]
    assert sizes(mixed) == [3, 1]
    own_login = hapi(bundle=BundleType.BATCH, bundle_entries=50, login=OneUpLogin())
    assert sizes(mixed, own_login) == [2, 1, 1]


def test_no_group_is_larger_than_the_least_limit_of_its_members() -> None:
    suspects = [
        Candidate(
            upload_id=UUID(int=100 + n),
            user_id=UUID(int=1),
            fhir_version="R4",
            body_bytes=1,
            limit=limit,
        )
        for n, limit in enumerate((1, 3, 6, 6, 2))
    ]
    limits = {each.upload_id: each.limit for each in suspects}
    for group in groups(suspects + due(55), FIFTY):
        assert len(group) <= min(limits.get(id_) or 50 for id_ in group)


def _sends_until_alone(size: int, *, refused: bool) -> int:
    """How often an upload shares a Bundle, if each one fails and is as large as it may be."""
    limit, sends = ANY, 0
    while (now := limit or size) > 1:
        limit = after_refused(now, 400) if refused else after_unknown(limit, now)
        sends += 1
    return sends


@pytest.mark.parametrize("size", range(2, 101))
def test_beside_a_poisonous_record_few_sends_are_wasted(size: int) -> None:
    assert _sends_until_alone(size, refused=True) <= 2
    assert _sends_until_alone(size, refused=False) <= 3


def test_what_is_refused_and_unknown_by_turns_is_alone_as_soon() -> None:
    assert after_refused(after_unknown(ANY, 50), 400) == 6
    assert after_unknown(after_refused(50, 400), 6) == 1


def test_a_bundle_that_is_too_large_is_halved() -> None:
    assert [after_refused(50, 413), after_refused(25, 413), after_refused(2, 413)] == [25, 12, 1]


def test_a_claim_writes_what_is_true_if_its_process_is_killed() -> None:
    alone, first, again = (UUID(int=n) for n in range(3))
    assert limits_at_claim([[alone], [first, again]], {alone: ANY, first: ANY, again: 30}) == {
        first: 2,
        again: 1,
    }


def member(place: str, *refers_to: str, size: int = 10) -> Member:
    return Member(places=frozenset({place}), refers_to=frozenset(refers_to), body_bytes=size)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([member("A/1"), member("A/2")], [[0, 1]]),
        ([member("A/1"), member("A/1")], [[0], [1]]),
        ([member("A/1"), member("B/1", "A/1")], [[0], [1]]),
        ([member("B/1", "A/1"), member("A/1")], [[0], [1]]),
        ([member("B/1", "A/1"), member("B/2", "A/1"), member("A/1")], [[0, 1], [2]]),
        ([member("B/1", "B/1"), member("A/1")], [[0, 1]]),
        ([member("A/1", size=60), member("A/2", size=60), member("A/3", size=40)], [[0, 2], [1]]),
        ([], []),
    ],
)
def test_no_record_shares_a_bundle_with_what_it_refers_to(
    members: list[Member], expected: list[list[int]]
) -> None:
    assert apart(members, max_bytes=100) == expected
