"""Gets new tokens from 1upHealth for a grant: by its refresh token, or else by a new code."""

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_fixed

from uplift.errors import TokenError, Trouble
from uplift.ledger.grants import GrantRow
from uplift.ledger.token_pair import TokenPair
from uplift.metrics import tokens_renewed
from uplift.tokens.token_endpoint import TokenEndpoint

_CODE_TRIES = 4
_CODE_PAUSE_SECONDS = 0.5


def can_be_renewed(grant: GrantRow) -> bool:
    """Whether there is a way to new tokens without the person.

    A grant of the backend has none but its refresh token: user management may not know the user.
    """
    return grant.origin == "user_management" or grant.tokens.refresh_token is not None


async def obtain(endpoint: TokenEndpoint, app_user_id: str, grant: GrantRow) -> TokenPair:
    """New tokens for the grant. The old ones are over then.

    Raises TokenError: REFUSED if only the person can give a new grant.
    """
    if not can_be_renewed(grant):
        raise TokenError(Trouble.REFUSED, "no_refresh_token")
    if grant.tokens.refresh_token is not None:
        try:
            refreshed = await endpoint.refresh(grant.tokens.refresh_token)
            tokens_renewed.labels("refresh").inc()
            return refreshed
        except TokenError as error:
            # Only a refusal leads on to a code: all users share 300 codes an hour.
            if error.trouble is not Trouble.REFUSED or grant.origin == "backend":
                raise
    code = await endpoint.auth_code(app_user_id)
    tokens = await exchange(endpoint, code.code)
    tokens_renewed.labels("code").inc()
    return tokens


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, TokenError) and error.trouble is Trouble.REFUSED


@retry(
    retry=retry_if_exception(_is_refusal),
    stop=stop_after_attempt(_CODE_TRIES),
    wait=wait_fixed(_CODE_PAUSE_SECONDS),
    reraise=True,
)
async def exchange(endpoint: TokenEndpoint, code: str) -> TokenPair:
    """Trade a fresh code for tokens. A code may take a second to become valid: tries 4 times.

    Raises TokenError.
    """
    return await endpoint.exchange_code(code)
