"""The HTTP calls to 1upHealth's user management and token endpoint: users, codes and tokens."""

from dataclasses import dataclass
from typing import Any

import httpx

from uplift.destinations.responses import retry_after
from uplift.errors import ConfigurationError, QuotaSpent, TokenError, Trouble
from uplift.ledger.token_pair import TokenPair
from uplift.settings import Settings
from uplift.tokens.quota import Quota
from uplift.tokens.token_request import post_form, token_pair, trouble

# The code of a call that was not made, because the quota of all processes is spent.
QUOTA_SPENT = "quota_spent"
_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code of a user at 1upHealth."""

    code: str
    oneup_user_id: str | None

    def __repr__(self) -> str:
        return "Code(…)"


class TokenEndpoint:
    """Creates users, and trades codes and refresh tokens for tokens.

    Waits `seconds` for a response. Calls to user management are charged to `quota`: a spent quota
    is BUSY, as 1upHealth's own 429 is. Raises ConfigurationError for credentials that cannot be
    sent.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        settings: Settings,
        quota: Quota,
        *,
        seconds: float = _SECONDS,
    ) -> None:
        self._http = http
        self._quota = quota
        self._seconds = seconds
        self._token_url = settings.oneup_token_url
        self._users_url = settings.oneup_users_url
        self._client = {
            "client_id": settings.oneup_client_id,
            "client_secret": settings.oneup_client_secret.get_secret_value(),
        }
        for name, value in self._client.items():
            if not (value.isascii() and value.isprintable()):
                raise ConfigurationError(
                    f"UPLIFT_ONEUP_{name.upper()} must be visible ASCII: it goes into a header."
                    " Is there a line break at its end?"
                )

    async def create_user(self, app_user_id: str) -> Code | None:
        """Create a user at 1upHealth. None if there is one already. Raises TokenError."""
        status, response, headers = await self._call(self._users_url, app_user_id, new_user=True)
        # 1upHealth says "this user already exists" with status 200 and with 400.
        if response.get("success") is False and "already exists" in str(response.get("error")):
            return None
        return _code(status, response, headers)

    async def auth_code(self, app_user_id: str, *, new_user: bool = False) -> Code:
        """Get a new code for a user whom 1upHealth knows already. Raises TokenError.

        `new_user`: the user is new to Uplift, so the call may use the quota's reserve.
        """
        status, response, headers = await self._call(
            f"{self._users_url}/auth-code", app_user_id, new_user=new_user
        )
        return _code(status, response, headers)

    async def exchange_code(self, code: str) -> TokenPair:
        """Trade a code for tokens. Raises TokenError."""
        return await self._tokens({"grant_type": "authorization_code", "code": code})

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Trade a refresh token for new tokens. The old pair is over then. Raises TokenError."""
        return await self._tokens({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def _call(
        self, url: str, app_user_id: str, *, new_user: bool
    ) -> tuple[int, dict[str, Any], httpx.Headers]:
        try:
            async with self._quota.call(new_user=new_user):
                # Credentials in headers and ids as form fields, by 1upHealth's newest page. So
                # they are not in the URL, which proxies and servers log.
                status, response, headers = await self._post(
                    url, {"app_user_id": app_user_id}, self._client
                )
        except QuotaSpent as spent:
            raise TokenError(Trouble.BUSY, QUOTA_SPENT, retry_after=spent.retry_after) from None
        if status == 429:
            seconds = await self._quota.used_up(retry_after(headers))
            raise TokenError(Trouble.BUSY, "http_429", retry_after=seconds)
        return status, response, headers

    async def _tokens(self, form: dict[str, str]) -> TokenPair:
        status, response, headers = await self._post(self._token_url, {**self._client, **form})
        return token_pair(status, response, headers)

    async def _post(
        self, url: str, form: dict[str, str], headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any], httpx.Headers]:
        return await post_form(self._http, url, form, headers or {}, seconds=self._seconds)


def _code(status: int, response: dict[str, Any], headers: httpx.Headers) -> Code:
    code, user = response.get("code"), response.get("oneup_user_id")
    if 200 <= status < 300 and isinstance(code, str) and code:
        return Code(code, str(user) if isinstance(user, str | int) else None)
    raise trouble(status, response, headers)
