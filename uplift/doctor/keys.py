"""Does the key ring open the data keys in the ledger, and which master keys can go?"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.key_check import KeyUse
from uplift.key_life import KeyLife, destroy_at, due_at
from uplift.sealing import KeyRing
from uplift.settings import Settings

PART = "keys"


def judge_keys(key_ring: KeyRing, use: KeyUse) -> list[Finding]:
    """A line for each master key, the one in use first."""
    return list(_judged(key_ring, use))


def judge_credentials(forged: Sequence[UUID], limit: int) -> list[Finding]:
    """What the rows of API keys and device tokens say that have a wrong MAC."""
    if not forged:
        return []
    count = f"{limit} or more" if len(forged) == limit else f"{len(forged)}"
    return [
        fail(
            PART,
            f"{count} API key(s) or device token(s) in the ledger were not made by Uplift, or"
            f" changed: {forged[0]} …",
            "Nobody can use them. Find out who wrote to the table `credentials`, change"
            " PostgreSQL's passwords, and revoke them: `uplift keys revoke ID`.",
        )
    ]


def judge_lives(
    lives: Mapping[str, KeyLife], key_ring: KeyRing, now: datetime, settings: Settings
) -> list[Finding]:
    """Whether the key in use is to be replaced, and which others may be destroyed."""
    found = []
    for id_, life in lives.items():
        due = due_at(life, settings.master_key_rotation_days)
        if id_ == key_ring.current and due is not None and due <= now:
            found.append(
                warn(
                    PART,
                    f"{id_}: in use since {life.in_use_since:%Y-%m-%d}, and was to be replaced on"
                    f" {due:%Y-%m-%d}",
                    "Rotate: docs/keys.md. Who is erased is promised a date that counts on it.",
                )
            )
        elif id_ != key_ring.current and life.in_use_since and not life.retired_at:
            end = destroy_at(life, settings.backups_kept_days)
            if end is not None and end <= now:
                found.append(
                    warn(
                        PART,
                        f"{id_}: nothing in the ledger and no kept backup needs it",
                        f"Destroy it: `uplift keys retire {id_}`.",
                    )
                )
    return found


def _judged(key_ring: KeyRing, use: KeyUse) -> Iterator[Finding]:
    for id_ in key_ring.ids:
        users = use.users.get(id_, 0)
        if id_ in use.different:
            yield fail(
                PART,
                f"{id_}: a different key, which does not open the data keys of {users} user(s)",
                "Put the former key back under this id. Give a new key an id of its own.",
            )
        elif id_ == key_ring.current:
            yield ok(PART, f"{id_}: in use, {users} user(s)")
        elif users or id_ in use.deployment:
            also = " and keys of the deployment" if id_ in use.deployment else ""
            yield warn(
                PART,
                f"{id_}: still wraps {users} user(s){also}",
                f"First put {key_ring.current} in front for every process. Then run `uplift"
                " rotate-keys`. Keep this key until it wraps nothing.",
            )
        else:
            yield ok(
                PART,
                f"{id_}: wraps 0 user(s). If it is new, put it in front. If it is old, `uplift keys"
                f" retire {id_}` says whether a backup needs it",
            )
    for id_ in sorted(use.missing):
        yield fail(
            PART,
            f"{id_}: not on the key ring, but wraps {use.users.get(id_, 0)} user(s)",
            "Put it back into UPLIFT_MASTER_KEYS, behind the one in use. Then `uplift rotate-keys`"
            " moves these users to the key in use.",
        )
