"""Which version of a record is newer, as its server says."""

from datetime import UTC, datetime, timedelta

import pytest

from uplift.watermark import (
    NO_TIMES,
    Stamped,
    Times,
    comparable,
    from_bytes,
    is_late,
    noted,
    to_bytes,
)

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-11-23T10:00:00Z", NOW),
        ("2026-11-23t10:00:00z", NOW),
        ("2026-11-23T11:00:00.000+01:00", NOW),
        ("2026-11-23T10:00:00.123456789Z", NOW.replace(microsecond=123456)),
        ("2026-11-24T10:00:00Z", NOW + timedelta(days=1)),
        ("2026-11-24T10:00:01Z", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("2026-11-23T10:00:00", None),
        ("2026-11-23", None),
        ("23:59:60Z", None),
        ("\ud800", None),
        ("", None),
        (20261123, None),
        (None, None),
    ],
)
def test_only_a_time_with_a_zone_that_is_not_in_the_future_is_compared(
    text: object, found: datetime | None
) -> None:
    assert comparable(text, accepted_at=NOW) == found


_OF_A = Times(updated=NOW, server="s")


@pytest.mark.parametrize(
    ("new", "known", "late"),
    [
        (Times(updated=NOW - HOUR, server="s"), _OF_A, True),
        (Times(updated=NOW, server="s"), _OF_A, False),
        (Times(updated=NOW + HOUR, server="s"), _OF_A, False),
        (Times(updated=NOW - HOUR, server="t"), _OF_A, False),
        (Times(updated=NOW - HOUR), _OF_A, True),
        (Times(updated=NOW - HOUR), Times(updated=NOW), True),
        # When it was received counts only where neither says when it was updated.
        (Times(received=NOW - HOUR, server="s"), Times(received=NOW, server="s"), True),
        (Times(received=NOW, server="s"), Times(received=NOW, server="s"), False),
        (Times(received=NOW - HOUR, server="s"), Times(updated=NOW, server="s"), False),
        (
            Times(received=NOW - HOUR, server="s"),
            Times(updated=NOW, received=NOW, server="s"),
            False,
        ),
        (
            Times(updated=NOW, received=NOW - HOUR, server="s"),
            Times(updated=NOW, received=NOW, server="s"),
            False,
        ),
        (NO_TIMES, Times(updated=NOW), False),
        (Times(updated=NOW), NO_TIMES, False),
    ],
)
def test_a_version_is_late_if_the_same_server_says_that_it_is_older(
    new: Times, known: Times, late: bool
) -> None:
    assert is_late(new, [Stamped(1, known)]) is late
    assert is_late(new, [Stamped(1, NO_TIMES), Stamped(2, known)]) is late
    assert not is_late(new, [])


def test_a_duplicate_moves_the_times_of_its_version_forward_and_never_back() -> None:
    first = Stamped(1, Times(updated=NOW, received=NOW, server="s"))
    later = Stamped(1, Times(updated=NOW + HOUR, server="s"))
    earlier = Stamped(1, Times(updated=NOW - HOUR, received=NOW - HOUR, server="s"))
    moved = [Stamped(1, Times(updated=NOW + HOUR, received=NOW, server="s"))]
    assert noted([first], later, keeps=bool) == moved
    assert noted(moved, earlier, keeps=bool) == moved


def test_versions_that_do_not_matter_any_more_are_forgotten() -> None:
    stamped = [Stamped(number, Times(updated=NOW)) for number in (1, 2, 3)]
    new = Stamped(4, Times(updated=NOW + HOUR))
    assert noted(stamped, new, keeps=lambda version: version == 2) == [stamped[1], new]
    assert noted(stamped, Stamped(4, NO_TIMES), keeps=bool) == stamped


def test_the_number_of_kept_times_has_a_limit_and_the_last_stay() -> None:
    stamped = [Stamped(1, Times(updated=NOW, server=str(number))) for number in range(30)]
    assert noted(stamped, None, keeps=bool) == stamped[10:]


def test_times_are_the_same_after_they_were_sealed() -> None:
    stamped = [
        Stamped(1, Times(updated=NOW, received=NOW + HOUR, server="s")),
        Stamped(2, Times(received=NOW.replace(microsecond=5))),
    ]
    assert from_bytes(to_bytes(stamped)) == stamped
