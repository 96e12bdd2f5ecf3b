"""Finds the credential of a secret. It asks the ledger each time, so revoking works at once."""

import re

from uplift.coalesce import Coalescer
from uplift.ledger import credentials
from uplift.ledger.credentials import CredentialRow
from uplift.ledger.database import Database, is_away

_SECRET = re.compile(r"uplift_(key|device)_[A-Za-z0-9_-]{43}", re.ASCII)


class Authenticator:
    """Finds credentials. Requests that come together share one statement.

    Nothing is cached: each request asks after it came.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._find = Coalescer(self._find_all, concerns_all=is_away)

    async def find(self, secret: str) -> CredentialRow | None:
        """The credential of that secret, if it is neither revoked nor expired.

        What no secret looks like costs no statement.
        """
        if not _SECRET.fullmatch(secret):
            return None
        return await self._find(secret)

    async def _find_all(self, secrets: list[str]) -> list[CredentialRow | None]:
        async with self._database.reading() as connection:
            found = await credentials.find_credentials(connection, secrets)
        return [found.get(secret) for secret in secrets]
