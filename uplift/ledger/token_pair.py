"""The tokens of a user's grant."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenPair:
    """An access token and, where one was given, the refresh token that follows it."""

    access_token: str
    refresh_token: str | None
    expires_in: float  # seconds

    def __repr__(self) -> str:
        return "TokenPair(…)"
