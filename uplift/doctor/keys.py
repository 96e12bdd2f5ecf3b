"""Does the key ring open the data keys in the ledger, and which master keys can go?"""

from collections.abc import Iterator, Sequence
from uuid import UUID

from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.key_check import KeyUse
from uplift.sealing import KeyRing

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
                f"{id_}: wraps 0 user(s). Remove it if it is old. Put it in front if it is new",
            )
    for id_ in sorted(use.missing):
        yield fail(
            PART,
            f"{id_}: not on the key ring, but wraps {use.users.get(id_, 0)} user(s)",
            "Put it back into UPLIFT_MASTER_KEYS, behind the one in use. Then `uplift rotate-keys`"
            " moves these users to the key in use.",
        )
