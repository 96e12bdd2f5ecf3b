"""When a master key is to be replaced, and when it may be destroyed. Pure.

A user who is erased is in backups, and in PostgreSQL's files, for a while: with a data key that a
master key wraps. Once that master key is destroyed, nobody can read what is left.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class KeyLife:
    """What the ledger knows of a master key.

    `needed_at`: when it was last seen to wrap something. `wraps`: whether it does so now.
    """

    id: str
    in_use_since: datetime | None
    needed_at: datetime
    retired_at: datetime | None
    wraps: bool


def due_at(life: KeyLife, rotation_days: float) -> datetime | None:
    """When the key in use is to be replaced."""
    if life.in_use_since is None:
        return None
    return life.in_use_since + timedelta(days=rotation_days)


def destroy_at(life: KeyLife, backups_kept_days: float | None) -> datetime | None:
    """From when on no backup needs the key. None if nobody knows, or it still wraps something."""
    if backups_kept_days is None or life.wraps:
        return None
    return life.needed_at + timedelta(days=backups_kept_days)


def unreadable_by(
    now: datetime,
    in_use_since: datetime | None,
    rotation_days: float,
    backups_kept_days: float | None,
) -> datetime | None:
    """When at the latest nobody can read what is left of a user who is erased now.

    The key in use is replaced when it is due, and destroyed when the oldest backup from before that
    is gone. None if nobody said how long backups are kept.
    """
    if backups_kept_days is None:
        return None
    due = (in_use_since or now) + timedelta(days=rotation_days)
    return max(now, due) + timedelta(days=backups_kept_days)


def why_not_retire(
    key_id: str,
    life: KeyLife | None,
    *,
    current: str,
    now: datetime,
    backups_kept_days: float | None,
) -> list[str]:
    """What speaks against destroying this key; nothing if it may be destroyed."""
    if life is None:
        return [f"Nobody has seen a master key {key_id!r} on a key ring. Check its id."]
    reasons = []
    if key_id == current:
        reasons.append(f"{key_id} is in use. Put another one in front of it first.")
    if life.wraps:
        reasons.append(f"{key_id} still wraps data keys. Run `uplift rotate-keys` first.")
    if backups_kept_days is None:
        reasons.append(
            "UPLIFT_BACKUPS_KEPT_DAYS is not set, so nobody knows whether a backup needs it. Set it"
            " to the age of your oldest backup, in days."
        )
    at = destroy_at(life, backups_kept_days)
    if at is not None and now < at:
        reasons.append(
            f"Backups from before {life.needed_at:%Y-%m-%d %H:%M} UTC need {key_id}. They are kept"
            f" until {at:%Y-%m-%d %H:%M} UTC."
        )
    return reasons
