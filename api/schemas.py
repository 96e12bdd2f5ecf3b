"""What the API says, as models: OpenAPI is made from them."""

import re
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from uplift.ledger.summary import Summary
from uplift.ledger.users import GrantState, UserRow
from uplift.lifecycle import State
from uplift.reading.status import Status
from uplift.users.erase import Erasure

AppUserId = Annotated[
    str,
    # No control characters: Postgres takes no NUL, and the name appears in addresses.
    StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$"),
]
ResourceType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,64}$")]


def _date_and_time(value: object) -> object:
    # Pydantic would read "2026" as seconds after 1970: a redrive since then is one of everything.
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt ]", value, re.ASCII):
        return value
    raise ValueError("This must be a date and time of RFC 3339, such as 2026-11-23T10:00:00Z.")


Instant = Annotated[AwareDatetime, BeforeValidator(_date_and_time)]
# What the header that carries it can hold: RFC 6749, appendix A.12, without the space.
_VISIBLE = r"^[\x21-\x7e]+$"


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Receipt(Camel):
    """What 1upHealth calls the stored resource."""

    id: str | None = Field(examples=["A1-77"])
    version: str | None = Field(examples=["1"])
    stored_at: datetime | None = Field(
        default=None,
        description="When, by 1upHealth's own clock (`meta.lastUpdated`); without that, when it was"
        " known.",
    )
    sha256: str | None = Field(
        default=None,
        description="SHA-256 of the bytes that were sent, in hexadecimal digits.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )


class Issue(Camel):
    """A finding, as in a FHIR OperationOutcome. Never holds a value of the record."""

    severity: Literal["fatal", "error", "warning", "information"]
    code: str = Field(examples=["required"])
    expression: list[str] = Field(examples=[["Condition.subject"]])
    diagnostics: str = Field(examples=["This element is required."])


class Issues(Camel):
    """What validation found: at most 50 issues, and how many there are in all."""

    total: int = 0
    issue: list[Issue] = []


class UploadStatus(Camel):
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
        description="It was sent again after an unknown outcome, so it may be there twice."
    )
    maybe_stored: bool = Field(
        description="1upHealth may hold it, now or later, although no answer says so."
    )
    cancel_requested: bool = Field(
        description="Its owner asked to cancel it while it might have been sent already."
    )
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    receipt: Receipt | None
    issues: Issues
    last_response: str | None = Field(examples=["http_201"])
    status_url: str = Field(examples=["/v1/uploads/0199c5a4-…"])

    @classmethod
    def of(cls, status: Status, *, duplicate: bool = False) -> "UploadStatus":
        """The status of an upload, for its owner."""
        row = status.upload
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
            cancel_requested=row.cancel_requested,
            created_at=row.created_at,
            updated_at=row.updated_at,
            next_attempt_at=row.next_attempt_at,
            delivered_at=row.delivered_at,
            receipt=Receipt(**asdict(status.receipt)) if status.receipt is not None else None,
            issues=Issues.model_validate(row.issues or {}),
            last_response=row.last_response,
            status_url=f"/v1/uploads/{row.id}",
        )


class UploadList(Camel):
    """Uploads in the order of acceptance."""

    uploads: list[UploadStatus]
    next: str | None = Field(description="The address of the next page, if there may be one.")


class NewUser(Camel):
    """A person, as the backend names them."""

    app_user_id: AppUserId = Field(examples=["alice"])


class UserStatus(Camel):
    """A user, and whether their grant at 1upHealth works."""

    app_user_id: str = Field(examples=["alice"])
    oneup_user_id: str | None = Field(examples=["251"])
    grant: GrantState
    grant_origin: Literal["user_management", "backend"] | None = Field(
        description="Who obtained the grant. One that the backend brought is renewed by its refresh"
        " token only: when 1upHealth refuses that, the backend has to bring another."
    )
    paused: bool = Field(
        description="Nothing is sent for the user until an operator resumes them, or everybody."
    )
    created_at: datetime

    @classmethod
    def of(cls, row: UserRow) -> "UserStatus":
        """The status of a row."""
        return cls(
            app_user_id=row.app_user_id,
            oneup_user_id=row.oneup_user_id,
            grant=GrantState(row.grant_state or GrantState.NONE),
            grant_origin=row.grant_origin,
            paused=row.paused,
            created_at=row.created_at,
        )


class UserList(Camel):
    """Users in the order in which they were added."""

    users: list[UserStatus]
    next: str | None = Field(
        description="The address of the next page, if there may be one.",
        examples=["/v1/users?grant=needs_authorization&after=0199c5a4-…&limit=100"],
    )


class UserSummary(Camel):
    """How far a user's uploads are, in numbers."""

    app_user_id: str = Field(examples=["alice"])
    grant: GrantState
    complete: bool = Field(
        description="Nothing is on its way any more: no upload is queued, sending or parked."
    )
    total: int = Field(examples=[250])
    by_status: dict[State, int] = Field(
        description="How many uploads there are in each status.",
        examples=[{"delivered": 248, "rejected": 2}],
    )
    by_type: dict[str, dict[State, int]] = Field(
        description="The same by resource type, where there are any.",
        examples=[{"Observation": {"delivered": 248}, "Condition": {"rejected": 2}}],
    )

    @classmethod
    def of(cls, row: UserRow, summary: Summary) -> "UserSummary":
        """The summary of a user's uploads."""
        return cls(
            app_user_id=row.app_user_id,
            grant=GrantState(row.grant_state or GrantState.NONE),
            complete=summary.complete,
            total=sum(summary.by_state.values()),
            by_status=summary.by_state,
            by_type=summary.by_type,
        )


class Erasing(Camel):
    """A user who is beyond reading already, while workers end what they have under way."""

    status: Literal["erasing"] = "erasing"
    sending: int = Field(
        description="Uploads that workers still hold; each until it ends or its lease does.",
        examples=[1],
    )

    @classmethod
    def of(cls, erasure: Erasure) -> "Erasing":
        """How far an erasure is that is not done."""
        return cls(sending=erasure.sending)


class BroughtGrant(Camel):
    """Tokens that the backend obtained itself."""

    access_token: str = Field(
        min_length=1, max_length=8192, pattern=_VISIBLE, examples=["d5f0…access"]
    )
    refresh_token: str | None = Field(
        default=None, min_length=1, max_length=8192, pattern=_VISIBLE, examples=["8ac1…refresh"]
    )
    expires_in: float = Field(gt=0, le=366 * 24 * 3600, description="Seconds.", examples=[7200])


class DeviceTokenRequest(Camel):
    """How long a device may submit and read."""

    expires_in: int = Field(gt=0, description="Seconds.", examples=[3600])


class DeviceToken(Camel):
    """A device token. It is shown this once."""

    id: UUID = Field(description="To revoke it by.")
    token: str = Field(examples=["uplift_device_…"])
    expires_at: datetime
