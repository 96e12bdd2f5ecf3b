"""Whose token is wanted, and the token."""

from dataclasses import dataclass
from uuid import UUID

from uplift.sealing import UserKey


@dataclass(frozen=True, slots=True)
class Person:
    """The user's id in the ledger, their name at the backend, and their key."""

    user_id: UUID
    app_user_id: str
    key: UserKey


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token to use now, and the version of the grant that it comes from.

    `scheme` is that of the `Authorization` header: RFC 9110, 11.1.
    """

    value: str
    version: int
    scheme: str = "Bearer"

    @property
    def authorization(self) -> str:
        """The header's value; empty if none is sent."""
        return f"{self.scheme} {self.value}" if self.scheme else ""

    def __repr__(self) -> str:
        return f"AccessToken(version={self.version})"


NO_AUTHORIZATION = AccessToken("", 0, "")
"""No header at all."""
