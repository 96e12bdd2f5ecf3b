"""What the API says, as models: OpenAPI is made from them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from relay.ledger.uploads import UploadRow, receipt_context
from relay.ledger.users import UserRow, key_context
from relay.lifecycle import State
from relay.sealing import KeyRing, WrappedKey

AppUserId = Annotated[
    str,
    # No control characters: Postgres takes no NUL, and the name appears in addresses.
    StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$"),
]


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Receipt(_Camel):
    """What 1upHealth calls the stored resource."""

    id: str | None = Field(examples=["A1-77"])
    version: str | None = Field(examples=["1"])


class Issue(_Camel):
    """A finding, as in a FHIR OperationOutcome. Never holds a value of the record."""

    severity: Literal["fatal", "error", "warning", "information"]
    code: str = Field(examples=["required"])
    expression: list[str] = Field(examples=[["Condition.subject"]])
    diagnostics: str = Field(examples=["This element is required."])


class Issues(_Camel):
    """What validation found: at most 50 issues, and how many there are in all."""

    total: int = 0
    issue: list[Issue] = []


class UploadStatus(_Camel):
    """Where an upload is, and how it went."""

    id: UUID
    status: State
    reason: str | None = Field(examples=["new"])
    final: bool = Field(description="Nothing happens to it any more by itself.")
    user: str = Field(description="The backend's name of the person.", examples=["alice"])
    fhir_version: str = Field(examples=["R4"])
    resource_type: str = Field(examples=["Condition"])
    batch: UUID | None
    attempts: int
    duplicate: bool = Field(description="This content was accepted before: nothing new is sent.")
    possible_duplicate: bool = Field(
        description="It was sent again after an unknown outcome that could not be looked up."
    )
    maybe_stored: bool = Field(
        description="1upHealth may hold it although no answer says so; not yet looked up."
    )
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    receipt: Receipt | None
    issues: Issues
    last_answer: str | None = Field(examples=["http_201"])
    status_url: str = Field(examples=["/v1/uploads/0199c5a4-…"])

    @classmethod
    def of(cls, row: UploadRow, ring: KeyRing, *, duplicate: bool = False) -> "UploadStatus":
        """The status of a row."""
        return cls(
            id=row.id,
            status=row.state,
            reason=row.reason,
            final=row.state.final,
            user=row.app_user_id,
            fhir_version=row.fhir_version,
            resource_type=row.resource_type,
            batch=row.batch_id,
            attempts=row.attempts,
            duplicate=duplicate,
            possible_duplicate=row.possible_duplicate,
            maybe_stored=row.maybe_sent,
            created_at=row.created_at,
            updated_at=row.updated_at,
            next_attempt_at=row.next_attempt_at,
            delivered_at=row.delivered_at,
            receipt=_receipt(row, ring),
            issues=Issues.model_validate(row.issues or {}),
            last_answer=row.last_answer,
            status_url=f"/v1/uploads/{row.id}",
        )


def _receipt(row: UploadRow, ring: KeyRing) -> Receipt | None:
    if row.sealed_receipt is None:
        return None
    wrapped = WrappedKey(row.master_key_id, row.wrapped_key)
    key = ring.unwrap(wrapped, key_context(row.user_id))
    opened: dict[str, Any] = orjson.loads(key.open(row.sealed_receipt, receipt_context(row.id)))
    return Receipt(**opened)


class UploadList(_Camel):
    """Uploads in the order of acceptance."""

    uploads: list[UploadStatus]
    next: str | None = Field(description="The address of the next page, if there may be one.")


class NewUser(_Camel):
    """A person, as the backend names them."""

    app_user_id: AppUserId = Field(examples=["alice"])


class UserStatus(_Camel):
    """A user, and whether their grant at 1upHealth works."""

    app_user_id: str = Field(examples=["alice"])
    oneup_user_id: str | None = Field(examples=["251"])
    grant: Literal["active", "needs_authorization", "none"]
    created_at: datetime

    @classmethod
    def of(cls, row: UserRow) -> "UserStatus":
        """The status of a row."""
        return cls(
            app_user_id=row.app_user_id,
            oneup_user_id=row.oneup_user_id,
            grant=row.grant_state or "none",
            created_at=row.created_at,
        )


class BroughtGrant(_Camel):
    """Tokens that the backend obtained itself."""

    access_token: str = Field(min_length=1, max_length=8192)
    refresh_token: str | None = Field(default=None, min_length=1, max_length=8192)
    expires_in: float = Field(gt=0, le=366 * 24 * 3600, description="Seconds.")


class DeviceTokenRequest(_Camel):
    """How long a device may submit and read."""

    expires_in: int = Field(gt=0, description="Seconds.", examples=[3600])


class DeviceToken(_Camel):
    """A device token. It is shown this once."""

    token: str
    expires_at: datetime
