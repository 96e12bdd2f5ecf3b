"""When a master key is due, when it may be destroyed, and what an erased person is promised."""

from datetime import UTC, datetime, timedelta

import pytest

from uplift.key_life import KeyLife, destroy_at, due_at, unreadable_by, why_not_retire

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def days(count: float) -> timedelta:
    return timedelta(days=count)


def life(*, since: float | None = 100, needed: float = 40, wraps: bool = False) -> KeyLife:
    """A key, in use and needed so many days ago."""
    in_use = None if since is None else NOW - days(since)
    return KeyLife("old", in_use, NOW - days(needed), None, wraps)


def test_a_key_is_due_a_rotation_period_after_it_came_into_use() -> None:
    assert due_at(life(since=100), 90) == NOW - days(10)
    assert due_at(life(since=None), 90) is None


@pytest.mark.parametrize(
    ("of", "kept", "at"),
    [
        (life(needed=40), 35, NOW - days(5)),
        (life(needed=10), 35, NOW + days(25)),
        (life(needed=40), None, None),
        (life(needed=40, wraps=True), 35, None),
    ],
)
def test_a_key_may_be_destroyed_when_the_last_backup_that_needs_it_is_gone(
    of: KeyLife, kept: float | None, at: datetime | None
) -> None:
    assert destroy_at(of, kept) == at


@pytest.mark.parametrize(
    ("since", "kept", "by"),
    [
        # Rotated at the latest in 60 days; the last backup from before then is gone 35 days later.
        (NOW - days(30), 35, NOW + days(60 + 35)),
        (NOW - days(400), 35, NOW + days(35)),
        (None, 35, NOW + days(90 + 35)),
        (NOW - days(30), 0, NOW + days(60)),
        (NOW - days(30), None, None),
    ],
)
def test_an_erased_person_is_unreadable_within_rotation_period_and_age_of_the_oldest_backup(
    since: datetime | None, kept: float | None, by: datetime | None
) -> None:
    assert unreadable_by(NOW, since, 90, kept) == by


@pytest.mark.parametrize(
    ("of", "current", "kept", "said"),
    [
        (life(), "new", 35, []),
        (None, "new", 35, ["Nobody has seen"]),
        (life(), "old", 35, ["is in use"]),
        (life(wraps=True), "new", 35, ["still wraps"]),
        (life(), "new", None, ["UPLIFT_BACKUPS_KEPT_DAYS is not set"]),
        (life(needed=10), "new", 35, ["until 2026-12-25"]),
        (life(wraps=True), "old", None, ["is in use", "still wraps", "is not set"]),
    ],
)
def test_a_key_is_retired_only_if_nothing_speaks_against_it(
    of: KeyLife | None, current: str, kept: float | None, said: list[str]
) -> None:
    reasons = why_not_retire("old", of, current=current, now=NOW, backups_kept_days=kept)
    assert len(reasons) == len(said)
    assert all(words in reason for words, reason in zip(said, reasons, strict=True))
