"""Does the key key_ring open what the ledger holds, and which keys can go?"""

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
                f"{id_}: another key than the one that wraps {users} user(s)",
                "Put the former key back under this id; give a new key an id of its own.",
            )
        elif id_ == key_ring.current:
            yield ok(PART, f"{id_}: in use, {users} user(s)")
        elif users:
            yield warn(
                PART,
                f"{id_}: still wraps {users} user(s)",
                f"Run `uplift rotate-keys` if every process has {key_ring.current} in front. Keep this"
                " key until the count is 0.",
            )
        else:
            yield ok(
                PART,
                f"{id_}: wraps nobody, count 0: it can be retired, or promoted if it is new",
            )
    for id_ in sorted(use.missing):
        yield fail(
            PART,
            f"{id_}: not on the key ring, but wraps {use.users[id_]} user(s)",
            "Put it back into UPLIFT_MASTER_KEYS, behind the one in use; then `uplift rotate-keys`"
            " moves users off it.",
        )
