"""Who calls, and what this caller may do."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter, ValidationError

from uplift.api.admission import Admission
from uplift.api.problems import Problem
from uplift.api.query_names import check_query_names
from uplift.api.refusals import CREDENTIAL
from uplift.api.schemas import AppUserId
from uplift.api.work import WORK, Work
from uplift.ledger.audit import Actor
from uplift.ledger.credentials import CredentialRow, Scope
from uplift.ledger.uploads import UploadRow
from uplift.problem_types import ProblemType
from uplift.wiring import Relay

_FAILURE_SECONDS = 0.005
_MAX_FAILING = 100
_APP_USER_ID: TypeAdapter[str] = TypeAdapter(AppUserId)


async def get_relay(request: Request) -> Relay:
    """The relay that the app's lifespan opened."""
    relay: Relay = request.app.state.relay
    return relay


RelayDep = Annotated[Relay, Depends(get_relay)]


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a valid credential. Methods raise a Problem for what is not allowed."""

    credential: CredentialRow

    def require(self, *scopes: Scope) -> None:
        """Raises a Problem (403) if the credential has none of these scopes."""
        if not self.credential.scopes.intersection(scopes):
            needed = " or ".join(scopes)
            raise Problem(
                ProblemType.MISSING_SCOPE,
                f"This request needs a key with the scope {needed}. Make one with"
                " `uplift keys add --scope`.",
            )

    @property
    def actor(self) -> Actor:
        """How the audit trail names the caller."""
        return self.credential.actor

    @property
    def is_device(self) -> bool:
        """Whether the credential is a device token. A device token belongs to one user."""
        return self.credential.user_id is not None

    def user(self, named: str | None) -> str:
        """The app user id of the request: the given one, or that of the device token.

        Raises a Problem: 403 for another user than the device token's, 400 for no or a wrong id.
        """
        own = self.credential.app_user_id
        if self.is_device:
            if own is None or named not in (None, own):
                raise Problem(
                    ProblemType.OTHER_USER,
                    "A device token can only submit and read uploads of its own user.",
                )
            return own
        if named is None:
            raise Problem(
                ProblemType.INVALID_USER,
                "The request names no user. Add ?user=, or `user` in the envelope.",
            )
        try:
            return _APP_USER_ID.validate_python(named)
        except ValidationError:
            raise Problem(
                ProblemType.INVALID_USER,
                "`user` must have 1 to 256 characters, and no control characters.",
            ) from None

    def check_sees(self, row: UploadRow | None) -> UploadRow:
        """The row. Raises a Problem (404) if there is none or the caller may not see it."""
        if row is None or (self.is_device and row.user_id != self.credential.user_id):
            raise Problem(ProblemType.NO_SUCH_UPLOAD, "There is no such upload.")
        return row


class _Bearer(HTTPBearer):
    """Finds the caller by the credential, in the ledger each time. So a revoked one ends at once.

    One dependency serves OpenAPI and the routes, because each dependency costs time.
    """

    async def __call__(self, request: HTTPConnection) -> Caller:  # type: ignore[override]
        relay: Relay = request.app.state.relay
        admission: Admission = request.app.state.admission
        bearer = await super().__call__(request)
        credential = await relay.authenticator.find(bearer.credentials) if bearer else None
        if credential is not None:
            request.scope[CREDENTIAL] = credential.id
            if request.scope["query_string"]:
                check_query_names(request)
            work: Work = request.scope[WORK]
            await work.begin(admission, credential)
            return Caller(credential)
        # A request without a credential gets no error code (RFC 6750, 3.1).
        challenge = 'Bearer error="invalid_token"' if bearer else "Bearer"
        # One after the other, so that those who try credentials leave the time to others.
        # Nor do they keep more than a few connections while they wait.
        headers = {"WWW-Authenticate": challenge}
        if admission.failing >= _MAX_FAILING:
            headers["Connection"] = "close"
        else:
            admission.failing += 1
            try:
                async with admission.failed_authentication:
                    await asyncio.sleep(_FAILURE_SECONDS)
            finally:
                admission.failing -= 1
        raise Problem(
            ProblemType.INVALID_TOKEN,
            "Send `Authorization: Bearer` with an API key or a device token that is neither revoked"
            " nor expired.",
            headers=headers,
        )


_bearer = _Bearer(
    auto_error=False,
    scheme_name="HTTPBearer",
    description="An API key (made by `uplift keys add`) or a device token.",
)

CallerDep = Annotated[Caller, Depends(_bearer)]


async def find_caller(request: Request) -> Caller:
    """Who calls. Raises a Problem (401) for a credential that is missing or not valid."""
    return await _bearer(request)
