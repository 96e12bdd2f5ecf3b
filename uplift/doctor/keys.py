"""Does the key ring open the data keys in the ledger, and which master keys can go?"""

from collections.abc import Iterator

from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.key_check import KeyUse
from uplift.sealing import KeyRing

PART = "keys"


def judge_keys(key_ring: KeyRing, use: KeyUse) -> list[Finding]:
    """A line for each master key, the one in use first."""
    return list(_judged(key_ring, use))


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
        elif users:
            yield warn(
                PART,
                f"{id_}: still wraps {users} user(s)",
                f"First put {key_ring.current} in front for every process. Then run `uplift"
                " rotate-keys`. Keep this key until the count is 0.",
            )
        else:
            yield ok(
                PART,
                f"{id_}: wraps 0 user(s). Remove it if it is old. Put it in front if it is new",
            )
    for id_ in sorted(use.missing):
        yield fail(
            PART,
            f"{id_}: not on the key ring, but wraps {use.users[id_]} user(s)",
            "Put it back into UPLIFT_MASTER_KEYS, behind the one in use. Then `uplift rotate-keys`"
            " moves these users to the key in use.",
        )
