"""Grants in the ledger: read, marked for a refresh, replaced by new tokens, ended."""

from collections.abc import Collection

import structlog
from sqlalchemy.exc import SQLAlchemyError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_before_delay,
    wait_exponential,
)

from uplift.errors import NeedsAuthorization
from uplift.ledger import grants, parking
from uplift.ledger.database import Database
from uplift.ledger.grants import GrantRow
from uplift.ledger.token_pair import TokenPair
from uplift.metrics import grants_ended, uploads_parked
from uplift.settings import Settings
from uplift.tokens.person import Person

_log = structlog.get_logger(__name__)

# Saving new tokens is tried for so many times the time of the mark. The mark ends meanwhile, but
# nothing else can save the grant.
_SAVING_PART = 2.0
_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 2.0


class GrantStore:
    """Reads and changes the grants of users.

    The mark of a refresh stands on the grant's row for `refresh_seconds`, in case the process that
    set it dies. `destinations` are the names of those that want a grant of each person.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        destinations: Collection[str],
        *,
        refresh_seconds: float,
    ) -> None:
        self._database = database
        self._destinations = destinations
        self._refresh_seconds = refresh_seconds
        self._parked_seconds = settings.parked_seconds

    async def active_grant(self, person: Person) -> GrantRow:
        """The person's grant. Raises NeedsAuthorization if there is none, or if it is dead."""
        async with self._database.reading() as connection:
            grant = await grants.get_grant(connection, person.user_id, person.key)
        if grant is None or not grant.active:
            raise NeedsAuthorization("The user has no working grant at 1upHealth.")
        return grant

    async def start_refresh(self, grant: GrantRow) -> bool:
        """Set the mark. False if another process has set it, or has replaced the grant."""
        async with self._database.transaction() as connection:
            return await grants.start_refresh(
                connection, grant.user_id, grant.version, self._refresh_seconds
            )

    async def end_refresh(self, grant: GrantRow) -> None:
        """Remove the mark: there are no new tokens, and the next process may ask."""
        async with self._database.transaction() as connection:
            await grants.end_refresh(connection, grant.user_id, grant.version)

    async def save(self, person: Person, grant: GrantRow, tokens: TokenPair) -> int | None:
        """Save new tokens in place of the grant's. Returns the new version.

        Returns None, and saves nothing, if the grant was replaced meanwhile. 1upHealth has ended
        the old tokens. So while the database is away, this tries again. A transaction that was
        committed although its connection broke is not overwritten: the version differs then.
        """
        about = {"user": str(person.user_id)}

        def log_the_failure(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            _log.warning("new_tokens_not_saved_yet", **about, error=type(error).__name__)

        save = AsyncRetrying(
            retry=retry_if_exception_type(SQLAlchemyError),
            wait=wait_exponential(_FIRST_PAUSE_SECONDS, max=_MAX_PAUSE_SECONDS),
            stop=stop_before_delay(_SAVING_PART * self._refresh_seconds),
            before_sleep=log_the_failure,
            reraise=True,
        )
        try:
            return await save(self._save_once, person, grant, tokens)
        except SQLAlchemyError as error:
            _log.error("new_tokens_lost", **about, error=type(error).__name__)
            raise

    async def _save_once(self, person: Person, grant: GrantRow, tokens: TokenPair) -> int | None:
        async with self._database.transaction() as connection:
            version = await grants.put_grant(
                connection,
                person.user_id,
                person.key,
                tokens,
                grant.origin,
                instead_of=grant.version,
            )
            if version is not None:
                await parking.end_waits_for_token(connection, person.user_id)
        return version

    async def end(self, grant: GrantRow) -> bool:
        """End the grant and park what the user has waiting for a destination that wants one.

        False if the grant was replaced meanwhile: nothing changes then.
        """
        async with self._database.transaction() as connection:
            ended = await grants.end_grant(connection, grant.user_id, grant.version)
            parked = (
                await parking.park_waiting(
                    connection,
                    grant.user_id,
                    destinations=self._destinations,
                    clock=self._parked_seconds,
                )
                if ended
                else set()
            )
        if ended:
            grants_ended.labels(grant.origin).inc()
            uploads_parked.inc(len(parked))
        return ended
