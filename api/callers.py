"""Who calls, and what they may."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter, ValidationError

from uplift.api.problems import Problem, not_found
from uplift.api.schemas import AppUserId
from uplift.ledger.audit import Actor
from uplift.ledger.credentials import CredentialRow, Scope
from uplift.ledger.uploads import UploadRow
from uplift.wiring import Relay

_APP_USER_ID: TypeAdapter[str] = TypeAdapter(AppUserId)


async def get_relay(request: Request) -> Relay:
    """The relay that the app's lifespan opened."""
    relay: Relay = request.app.state.relay
    return relay


RelayDep = Annotated[Relay, Depends(get_relay)]


@dataclass(frozen=True, slots=True)
class Caller:
    """A valid credential. Each method says no by raising a Problem."""

    credential: CredentialRow

    def require(self, *scopes: Scope) -> None:
        """One of these scopes is needed."""
        if not self.credential.scopes.intersection(scopes):
            needed = " or ".join(scopes)
            raise Problem(
                403,
                "This credential may not do that",
                f"It needs the scope {needed}. `uplift keys add --scope` makes such a key.",
            )

    @property
    def actor(self) -> Actor:
        """How the audit trail names the caller."""
        return self.credential.actor

    @property
    def is_device(self) -> bool:
        """Whether this is a device token, which stands for one user."""
        return self.credential.user_id is not None

    def user(self, named: str | None) -> str:
        """The app user id that the request is about: the named one, or the device's own."""
        own = self.credential.app_user_id
        if self.is_device:
            if own is None or named not in (None, own):
                raise Problem(
                    403,
                    "This credential may not do that",
                    "A device token submits and reads only its own user's uploads.",
                )
            return own
        if named is None:
            raise Problem(
                400,
                "The request is malformed",
                "There is no user. Name one: ?user=, or in the envelope.",
            )
        try:
            return _APP_USER_ID.validate_python(named)
        except ValidationError:
            raise Problem(
                400,
                "The request is malformed",
                "The user's name is not 1 to 256 characters without control characters.",
            ) from None

    def check_sees(self, row: UploadRow | None) -> UploadRow:
        """The row, if there is one and it is the caller's to see."""
        if row is None or (self.is_device and row.user_id != self.credential.user_id):
            raise not_found("There is no such upload.")
        return row


class _Bearer(HTTPBearer):
    """The caller by their credential; the ledger is asked each time, so revoking is immediate.

    One dependency, for OpenAPI and for the routes: FastAPI takes its time with each.
    """

    async def __call__(self, request: HTTPConnection) -> Caller:  # type: ignore[override]
        relay: Relay = request.app.state.relay
        bearer = await super().__call__(request)
        credential = await relay.authenticator.find(bearer.credentials) if bearer else None
        if credential is not None:
            return Caller(credential)
        raise Problem(
            401,
            "No valid credential",
            "Send Authorization: Bearer with an API key or a device token that is neither revoked"
            " nor expired.",
            headers={"WWW-Authenticate": "Bearer"},
        )


_bearer = _Bearer(
    auto_error=False,
    scheme_name="HTTPBearer",
    description="An API key (`uplift keys add`), or a device token.",
)

CallerDep = Annotated[Caller, Depends(_bearer)]
