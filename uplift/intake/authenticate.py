"""Who holds a secret: asked of the ledger each time, so that revoking works at once."""

from uplift.coalesce import Coalescer
from uplift.ledger import credentials
from uplift.ledger.credentials import CredentialRow
from uplift.ledger.database import Database, is_away


class Authenticator:
    """Finds credentials. Requests that come together ask in one statement.

    Nothing is remembered: a question is asked after the request that has it came.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._find = Coalescer(self._find_all, concerns_all=is_away)

    async def find(self, secret: str) -> CredentialRow | None:
        """The credential of that secret, if it is neither revoked nor over."""
        return await self._find(secret)

    async def _find_all(self, secrets: list[str]) -> list[CredentialRow | None]:
        async with self._database.reading() as connection:
            found = await credentials.find_credentials(connection, secrets)
        return [found.get(secret) for secret in secrets]
