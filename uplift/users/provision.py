"""Creates users: here, at 1upHealth, and with a grant that works."""

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.destinations.destination import Destinations
from uplift.errors import Conflict, TokenError, Trouble, UpstreamUnavailable
from uplift.key_check import KeyCheck
from uplift.ledger import audit, grants, parking, users
from uplift.ledger.audit import SYSTEM, Action, Actor
from uplift.ledger.database import Database
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.users import UserRow
from uplift.problem_types import ProblemType
from uplift.sealing import KeyRing
from uplift.tokens.obtain import exchange
from uplift.tokens.token_endpoint import Code, TokenEndpoint


class Provisioner:
    """Creates users and keeps their grants."""

    def __init__(
        self,
        database: Database,
        key_ring: KeyRing,
        tokens: TokenEndpoint,
        keys: KeyCheck,
        destinations: Destinations,
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._tokens = tokens
        self._keys = keys
        self._destinations = destinations

    async def provision(self, app_user_id: str, *, by: Actor = SYSTEM) -> tuple[UserRow, bool]:
        """The user of that name, with a working grant. And whether anything was new.

        Creates the user at 1upHealth, or uses the one that exists there, unless their destination
        needs no grant. It is safe to repeat.
        Raises UpstreamUnavailable if 1upHealth gives no tokens now: the user stays, and the next
        call continues. Raises Conflict if 1upHealth wants the person to authorise again, or if the
        user is being erased.
        """
        await self._keys.ensure()
        async with self._database.transaction() as connection:
            known = await users.find_user(connection, app_user_id)
            user = await self._add(connection, app_user_id, by)
        if user.erasing_upstream_since is not None:
            raise users.being_erased()
        if not self._needs_grant(user):
            return user, known is None
        if user.grant_state == "active":
            return user, False
        try:
            code = await self._code(app_user_id)
            tokens = await exchange(self._tokens, code.code)
        except TokenError as error:
            raise UpstreamUnavailable(
                ProblemType.UPSTREAM_UNAVAILABLE,
                _WHY_NOT[error.trouble].format(code=error.code),
                retry_after=error.retry_after,
            ) from None
        async with self._database.transaction() as connection:
            if await users.get_user(connection, user.id, lock=True) is None:
                raise Conflict(
                    ProblemType.USER_ERASED,
                    "The user was erased during this request. Send it again.",
                )
            if code.oneup_user_id is not None:
                await users.set_oneup_user(connection, user.id, code.oneup_user_id)
            await grants.put_grant(
                connection, user.id, user.key(self._key_ring), tokens, "user_management"
            )
            await audit.note(connection, by, Action.GRANT_OBTAINED, user_id=user.id)
            await parking.release_parked(connection, user.id)
            await parking.end_waits_for_token(connection, user.id)
            provisioned = await users.get_user(connection, user.id)
        return provisioned or user, True

    async def _add(self, connection: AsyncConnection, app_user_id: str, by: Actor) -> UserRow:
        return await users.add_user(
            connection,
            app_user_id,
            self._key_ring,
            destination=self._destinations.default,
            by=by,
        )

    def _needs_grant(self, user: UserRow) -> bool:
        destination = self._destinations.get(user.destination)
        return destination is None or destination.needs_grant

    async def _code(self, app_user_id: str) -> Code:
        """A code for the user, who is new or known at 1upHealth. Raises TokenError and Conflict."""
        try:
            code = await self._tokens.create_user(app_user_id)
            return code or await self._tokens.auth_code(app_user_id, new_user=True)
        except TokenError as error:
            if error.trouble is not Trouble.REFUSED:
                raise
            raise Conflict(
                ProblemType.NEEDS_AUTHORIZATION,
                f"1upHealth gives no grant for this user ({error.code}). If the person's consent"
                " has ended, they authorise again; then PUT /v1/users/NAME/grant stores the new"
                " grant. Otherwise, 1upHealth does not accept this app user id.",
            ) from None

    async def bring_grant(
        self, app_user_id: str, tokens: TokenPair, *, by: Actor = SYSTEM
    ) -> UserRow:
        """Keep a grant that the backend obtained itself. Create the user if there is none. For one
        who is erased upstream, the deletions need it.

        Uploads that are parked or wait for a token are released in the same transaction.
        """
        await self._keys.ensure()
        async with self._database.transaction() as connection:
            user = await self._add(connection, app_user_id, by)
            await grants.put_grant(connection, user.id, user.key(self._key_ring), tokens, "backend")
            await audit.note(connection, by, Action.GRANT_BROUGHT, user_id=user.id)
            await parking.release_parked(connection, user.id)
            await parking.end_waits_for_token(connection, user.id)
            brought = await users.get_user(connection, user.id)
        return brought or user


_WHY_NOT = {
    Trouble.BUSY: "The limit on user-management calls at 1upHealth is reached ({code}). Try later.",
    Trouble.REFUSED: "1upHealth refused its own new code ({code}). Try later.",
    Trouble.UNAVAILABLE: "1upHealth gave no tokens ({code}). Try later. If it stays so, check"
    " UPLIFT_ONEUP_USERS_URL, UPLIFT_ONEUP_TOKEN_URL, UPLIFT_ONEUP_CLIENT_ID and"
    " UPLIFT_ONEUP_CLIENT_SECRET.",
}
