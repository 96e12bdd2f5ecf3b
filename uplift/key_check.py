"""Whether the key ring opens what the ledger holds: asked at start, and while it runs.

A process whose ring does not fit must not go to work. A missing key would fail that key's users
one request at a time. Another key under the same id is worse: nothing that is there opens, and
whoever is added meanwhile is wrapped by it, so that in the end no ring opens all users.

PostgreSQL may be away at start, and the API answers 503 then rather than not at all. So the check
is made at start if the ledger answers, and otherwise before the first data key is wrapped, before
the first upload is claimed, and by /readyz: whatever needs the answer can also get it.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.errors import ConfigurationError, SealError
from uplift.ledger import user_keys
from uplift.ledger.database import Database
from uplift.ledger.user_keys import KeyRow
from uplift.ledger.users import key_context
from uplift.sealing import KeyRing

_log = structlog.get_logger(__name__)

_START_SECONDS = 10.0
# Rings and users change rarely, and each look reads all of `users`.
_FRESH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The ledger's living users by master key id, and which of those ids the ring cannot open."""

    users: Mapping[str, int]
    missing: frozenset[str]
    different: frozenset[str]

    @property
    def problem(self) -> str | None:
        """What is wrong and what to do, or None if the ring opens everything."""
        said = [_MISSING.format(id=id_, users=self.users[id_]) for id_ in sorted(self.missing)]
        said += [_DIFFERENT.format(id=id_, users=self.users[id_]) for id_ in sorted(self.different)]
        return " ".join(said) or None


_MISSING = (
    "UPLIFT_MASTER_KEYS does not hold the master key {id!r}, which the data keys of {users} user(s)"
    " are wrapped by. Put it back, behind the one in use; `uplift rotate-keys` moves users off it."
)
_DIFFERENT = (
    "UPLIFT_MASTER_KEYS holds another key under the id {id!r} than the one that the data keys of"
    " {users} user(s) are wrapped by. Put the former key back under this id; a new key needs an id"
    " of its own."
)


def compare(
    key_ring: KeyRing, users: Mapping[str, int], samples: Mapping[str, Sequence[KeyRow]]
) -> KeyUse:
    """Judge the ring by the master key ids in use and a few users' wrapped keys of each."""
    return KeyUse(
        users=users,
        missing=frozenset(users) - frozenset(key_ring.ids),
        different=frozenset(
            id_
            for id_ in key_ring.ids
            if not all(_opens(key_ring, row) for row in samples.get(id_, ()))
        ),
    )


def _opens(key_ring: KeyRing, row: KeyRow) -> bool:
    try:
        key_ring.unwrap(row.wrapped, key_context(row.user_id))
    except SealError:
        return False
    return True


async def key_use(connection: AsyncConnection, key_ring: KeyRing) -> KeyUse:
    """What the ledger holds, against the ring.

    Of each key on the ring, the oldest and the newest user's data key are opened.
    """
    users = await user_keys.count_by_master_key(connection)
    samples = {
        id_: await user_keys.samples_of(connection, id_) for id_ in key_ring.ids if id_ in users
    }
    return compare(key_ring, users, samples)


class KeyCheck:
    """Remembers whether this process's ring fits."""

    def __init__(self, database: Database, key_ring: KeyRing) -> None:
        self._database = database
        self._key_ring = key_ring
        self._checked_at: float | None = None  # when it fitted, on time.monotonic
        self._lock = asyncio.Lock()

    async def at_start(self) -> None:
        """Check if the ledger answers now; otherwise leave it to whoever needs the keys.

        Raises ConfigurationError if the ring does not fit.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self.ensure()
        except (SQLAlchemyError, TimeoutError, OSError) as error:
            _log.warning("keys_not_checked_yet", error=type(error).__name__)

    async def ensure(self, *, fresh: bool = False) -> None:
        """Return if the ring fits, asking the ledger once; with `fresh`, again each minute.

        Raises ConfigurationError if it does not fit, and SQLAlchemy's errors if the ledger does
        not answer.
        """
        if self._fits(fresh=fresh):
            return
        async with self._lock:
            if self._fits(fresh=fresh):
                return
            async with self._database.transaction() as connection:
                problem = (await key_use(connection, self._key_ring)).problem
            if problem is not None:
                self._checked_at = None
                _log.error("keys_do_not_fit", why=problem)
                raise ConfigurationError(problem)
            self._checked_at = time.monotonic()

    def _fits(self, *, fresh: bool) -> bool:
        if self._checked_at is None:
            return False
        return not fresh or time.monotonic() - self._checked_at < _FRESH_SECONDS
