"""The tokens of a user's grant."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenPair:
    """An access token, and the refresh token for the next pair if 1upHealth gave one."""

    access_token: str
    refresh_token: str | None
    expires_in: float  # seconds

    def __repr__(self) -> str:
        return "TokenPair(…)"
