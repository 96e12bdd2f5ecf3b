"""Finds the credential of a secret. It asks the ledger each time, so revoking works at once."""

import re
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from uplift.coalesce import Coalescer
from uplift.ledger import credentials
from uplift.ledger.credentials import CredentialRow, FoundCredentials
from uplift.ledger.database import Database, is_away, is_slow
from uplift.metrics import credentials_not_believed
from uplift.sealing import KeyRing

_log = structlog.get_logger(__name__)

# Whoever holds a forged row must neither fill the log nor make each request read the key again.
_QUIET_SECONDS = 10.0

# Each key's last use is written as often as this, so that requests do not wait for each other.
_NOTE_SECONDS = 60.0

_SECRET = re.compile(r"uplift_(key|device)_[A-Za-z0-9_-]{43}", re.ASCII)


class Authenticator:
    """Finds credentials. Requests that come together share one statement.

    Nothing is cached but the credential key: each request asks after it came. `now` is a clock in
    seconds.
    """

    def __init__(
        self, database: Database, key_ring: KeyRing, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._now = now
        self._key: bytes | None = None
        self._quiet_until = 0.0
        self._note_again_at: dict[UUID, float] = {}
        self._find = Coalescer(self._find_all, concerns_all=is_away, is_slow=is_slow)

    async def find(self, secret: str) -> CredentialRow | None:
        """The credential of that secret, if it is neither revoked nor expired nor forged.

        What no secret looks like costs no statement. Raises SealError if the key ring does not open
        the credential key.
        """
        if not _SECRET.fullmatch(secret):
            return None
        return await self._find(secret)

    async def _find_all(self, secrets: list[str]) -> list[CredentialRow | None]:
        if self._key is None:
            async with self._database.transaction() as connection:
                self._key = await credentials.credential_key(connection, self._key_ring)
        async with self._database.reading() as connection:
            found = await credentials.find_credentials(connection, self._key, secrets)
        if found.forged:
            self._refuse(found)
        await self._note_use(found)
        return [found.valid.get(secret) for secret in secrets]

    async def _note_use(self, found: FoundCredentials) -> None:
        now = self._now()
        # Device tokens are many, and end soon.
        used = {each.id for each in found.valid.values() if each.user_id is None}
        used = {each for each in used if self._note_again_at.get(each, 0.0) <= now}
        if not used:
            return
        self._note_again_at.update(dict.fromkeys(used, now + _NOTE_SECONDS))
        try:
            async with self._database.transaction() as connection:
                await credentials.note_use(connection, used)
        except (SQLAlchemyError, TimeoutError) as error:
            # The request itself may do without a write.
            _log.warning("use_not_noted", error=type(error).__name__)

    def _refuse(self, found: FoundCredentials) -> None:
        credentials_not_believed.inc(len(found.forged))
        if self._now() < self._quiet_until:
            return
        self._quiet_until = self._now() + _QUIET_SECONDS
        self._key = None  # after a restore, the ledger may have another
        _log.error("credential_not_believed", credential=str(min(found.forged)))
