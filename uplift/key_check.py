"""Checks whether the key ring opens the data keys in the ledger, at start and later.

A process with a wrong key ring must not start to work. If a key is missing, every request of that
key's users fails. Another key under the same id is worse: it opens no existing data key, and it
wraps the data keys of new users. In the end no key ring opens the keys of all users.

PostgreSQL may be away at start; the API runs and answers 503 then. So the check is made at start
only if the ledger responds. Otherwise it is made before the first data key is wrapped, before the
first upload is claimed, and by /readyz.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.errors import ConfigurationError, SealError
from uplift.ledger import deployment_keys, user_keys
from uplift.ledger.database import Database
from uplift.ledger.user_keys import KeyRow
from uplift.ledger.users import key_context
from uplift.sealing import KeyRing, WrappedKey

_log = structlog.get_logger(__name__)

_START_SECONDS = 10.0
# Key rings and users change rarely, and each check reads the whole table `users`.
_FRESH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How many users each master key has, and which of these keys the key ring cannot open.

    `missing`: ids that are not on the key ring. `different`: ids under which it has another key.
    `deployment`: ids of the master keys that wrap the deployment's own keys.
    """

    users: Mapping[str, int]
    missing: frozenset[str]
    different: frozenset[str]
    deployment: frozenset[str] = frozenset()

    @property
    def problem(self) -> str | None:
        """What is wrong and what to do. None if the key ring opens everything."""
        said = [
            _MISSING.format(id=id_, users=self.users.get(id_, 0)) for id_ in sorted(self.missing)
        ]
        said += [
            _DIFFERENT.format(id=id_, users=self.users.get(id_, 0))
            for id_ in sorted(self.different)
        ]
        return " ".join(said) or None


_MISSING = (
    "UPLIFT_MASTER_KEYS does not hold the master key {id!r}, which wraps the data keys of {users}"
    " user(s). Put it back, behind the one in use. Then `uplift rotate-keys` moves these users to"
    " the key in use."
)
_DIFFERENT = (
    "UPLIFT_MASTER_KEYS holds another key under the id {id!r} than the one that wraps the data keys"
    " of {users} user(s). Put the former key back under this id. Give a new key an id of its own."
)


def compare(
    key_ring: KeyRing,
    users: Mapping[str, int],
    samples: Mapping[str, Sequence[KeyRow]],
    deployment: Mapping[str, WrappedKey] = {},
) -> KeyUse:
    """Judge the key ring by the master key ids in use, by some wrapped keys of each, and by the
    deployment's own keys."""
    own = frozenset(wrapped.master_id for wrapped in deployment.values())
    closed = {
        wrapped.master_id
        for name, wrapped in deployment.items()
        if not _opens_own(key_ring, name, wrapped)
    }
    closed |= {
        id_
        for id_ in key_ring.ids
        if not all(_opens(key_ring, row) for row in samples.get(id_, ()))
    }
    return KeyUse(
        users=users,
        missing=(frozenset(users) | own) - frozenset(key_ring.ids),
        different=frozenset(closed & set(key_ring.ids)),
        deployment=own,
    )


def _opens_own(key_ring: KeyRing, name: str, wrapped: WrappedKey) -> bool:
    try:
        deployment_keys.open_key(key_ring, name, wrapped)
    except SealError:
        return False
    return True


def _opens(key_ring: KeyRing, row: KeyRow) -> bool:
    try:
        key_ring.unwrap(row.wrapped, key_context(row.user_id))
    except SealError:
        return False
    return True


async def key_use(connection: AsyncConnection, key_ring: KeyRing) -> KeyUse:
    """Compare the ledger with the key ring.

    For each key on the key ring, this opens the data keys of its oldest and its newest user.
    """
    users = await user_keys.count_by_master_key(connection)
    samples = {
        id_: await user_keys.samples_of(connection, id_) for id_ in key_ring.ids if id_ in users
    }
    return compare(key_ring, users, samples, await deployment_keys.wrapped_keys(connection))


class KeyCheck:
    """Checks this process's key ring, and remembers that it fits. `now` is a clock in seconds."""

    def __init__(
        self, database: Database, key_ring: KeyRing, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._now = now
        self._checked_at: float | None = None  # when it last fitted
        self._lock = asyncio.Lock()

    async def at_start(self) -> None:
        """Check now if the ledger responds. Otherwise the first who needs the keys checks.

        Raises ConfigurationError if the key ring does not fit.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self.ensure()
        except (SQLAlchemyError, TimeoutError, OSError) as error:
            _log.warning("keys_not_checked_yet", error=type(error).__name__)

    async def ensure(self, *, fresh: bool = False) -> None:
        """Return if the key ring fits. Asks the ledger once, with `fresh` once a minute.

        Raises ConfigurationError if it does not fit, and SQLAlchemy's errors if the ledger does
        not respond.
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
            self._checked_at = self._now()

    def _fits(self, *, fresh: bool) -> bool:
        if self._checked_at is None:
            return False
        return not fresh or self._now() - self._checked_at < _FRESH_SECONDS
