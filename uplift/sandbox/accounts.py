"""The application's users at the simulated 1upHealth, their codes and tokens, the call quota."""

import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from uplift.sandbox.config import SandboxConfig


class InvalidGrantError(Exception):
    """A code or refresh token that is unknown, used, too early or too late."""


@dataclass(slots=True)
class Account:
    """One user of the application."""

    oneup_user_id: str
    app_user_id: str
    active: bool = True

    def is_called(self, name: str) -> bool:
        """Whether this is the user's id at 1upHealth or in the application."""
        return name in (self.oneup_user_id, self.app_user_id)


@dataclass(slots=True)
class TokenPair:
    """The result of a token request."""

    access_token: str
    refresh_token: str
    expires_in: int


@dataclass(slots=True)
class _Code:
    user: str
    valid_from: float
    valid_until: float


@dataclass(slots=True)
class _Access:
    user: str
    expires_at: float


class Accounts:
    """All users, codes and tokens. Times are `time.monotonic()`.

    `note` is told of every user and every pair of tokens, in the form that `put_noted` takes.
    """

    def __init__(
        self, config: SandboxConfig, note: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> None:
        self._config = config
        self._note = note
        self._users: dict[str, Account] = {}
        self._by_app_id: dict[str, str] = {}
        self._codes: dict[str, _Code] = {}
        self._access: dict[str, _Access] = {}
        self._refresh: dict[str, str] = {}
        self._calls: deque[float] = deque()

    def list_users(self) -> list[Account]:
        """Every user, oldest first."""
        return list(self._users.values())

    def find(self, name: str | None) -> Account | None:
        """A user by either id."""
        if name is None:
            return None
        return self.by_oneup_id(name) or self.by_app_id(name)

    def by_oneup_id(self, oneup_user_id: str) -> Account | None:
        """A user by 1upHealth's id."""
        return self._users.get(oneup_user_id)

    def by_app_id(self, app_user_id: str) -> Account | None:
        """A user by the application's id."""
        return self._users.get(self._by_app_id.get(app_user_id, ""))

    def create(self, app_user_id: str) -> Account:
        """A new user; the caller has made sure that there is none of this name."""
        return self._add(Account(str(1001 + len(self._users)), app_user_id))

    def activate(self, account: Account, *, active: bool) -> None:
        """Say whether a user is active."""
        account.active = active
        self._add(account)

    def _add(self, account: Account) -> Account:
        self._users[account.oneup_user_id] = account
        self._by_app_id[account.app_user_id] = account.oneup_user_id
        self._note({"account": asdict(account)})
        return account

    def put_noted(self, noted: dict[str, Any]) -> None:
        """Take over what was noted earlier."""
        if "account" in noted:
            self._add(Account(**noted["account"]))
            return
        self._refresh.pop(noted["replaces"], None)
        self._keep(
            noted["user"],
            TokenPair(**noted["pair"]),
            until=noted["until"],
            replaces=noted["replaces"],
        )

    def spend_call(self) -> bool:
        """Count one user-management call; False if the quota of the period is spent."""
        now = time.monotonic()
        while self._calls and self._calls[0] <= now - self._config.quota_seconds:
            self._calls.popleft()
        if len(self._calls) >= self._config.quota_calls:
            return False
        self._calls.append(now)
        return True

    def issue_code(self, account: Account) -> str:
        """A single-use authorization code."""
        code = secrets.token_hex(20)
        valid_from = time.monotonic() + self._config.code_delay_seconds
        self._codes[code] = _Code(
            account.oneup_user_id, valid_from, valid_from + self._config.code_seconds
        )
        return code

    def exchange_code(self, code: str) -> TokenPair:
        """Tokens for a code, which is then used up. Raises InvalidGrantError."""
        known, now = self._codes.get(code), time.monotonic()
        if known is None or not known.valid_from <= now < known.valid_until:
            raise InvalidGrantError
        del self._codes[code]
        return self.issue_tokens(known.user)

    def refresh(self, refresh_token: str) -> TokenPair:
        """New tokens for a refresh token, which then no longer works. Raises InvalidGrantError."""
        user = self._refresh.pop(refresh_token, None)
        if user is None:
            raise InvalidGrantError
        return self.issue_tokens(user, replaces=refresh_token)

    def issue_tokens(self, oneup_user_id: str, *, replaces: str = "") -> TokenPair:
        """A fresh pair, for a refresh token that no longer works or for none."""
        seconds = self._config.token_seconds
        pair = TokenPair(secrets.token_hex(20), secrets.token_hex(20), seconds)
        self._keep(oneup_user_id, pair, until=time.time() + seconds, replaces=replaces)
        return pair

    def _keep(self, user: str, pair: TokenPair, *, until: float, replaces: str) -> None:
        expires_at = time.monotonic() + until - time.time()
        self._access[pair.access_token] = _Access(user, expires_at)
        self._refresh[pair.refresh_token] = user
        self._note({"user": user, "pair": asdict(pair), "until": until, "replaces": replaces})

    def expire_access(self, user: str | None) -> int:
        """End every access token now, or one user's (by either id); how many were valid."""
        account = self.find(user)
        ended = [
            token
            for token, access in self._access.items()
            if user is None or (account and access.user == account.oneup_user_id)
        ]
        for token in ended:
            del self._access[token]
        return len(ended)

    def holder_of_access(self, token: str) -> Account | None:
        """Whose live access token this is."""
        access = self._access.get(token)
        if access is None:
            return None
        if access.expires_at <= time.monotonic():
            del self._access[token]
            return None
        return self._users[access.user]

    def holder_of_refresh(self, token: str) -> Account | None:
        """Whose live refresh token this is."""
        return self._users.get(self._refresh.get(token, ""))

    def holder_of_code(self, code: str) -> Account | None:
        """For whom a code was issued."""
        known = self._codes.get(code)
        return self._users[known.user] if known else None
