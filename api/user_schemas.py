"""The API's JSON about users, grants and device tokens, as models."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from uplift.api.schemas import AppUserId, Camel, NextPage
from uplift.ledger.credentials import ListedCredential
from uplift.ledger.erasing_upstream import Progress
from uplift.ledger.named_patients import Patients
from uplift.ledger.summary import Summary
from uplift.ledger.users import GrantState, UserRow
from uplift.lifecycle import State
from uplift.users.erase import Erasure, Upstream
from uplift.users.names import PRINTABLE
from uplift.users.patients import PATIENT_ID

# What a header can carry: RFC 6749, appendix A.12, without the space.
VISIBLE = r"^[!-~]+$"


class NewUser(Camel):
    """The user to create."""

    model_config = ConfigDict(extra="forbid")

    app_user_id: AppUserId = Field(
        description="The backend's name for the person.", examples=["alice"]
    )


SYNC_TOKEN = Field(
    description="Remember it. When it changes, Uplift may lack what you sent: reset the app's"
    " HealthKit anchors and send everything again.",
    examples=["0199c5a4-4d10-4c6b-8f55-7f9d2f3f4f11"],
)


class UpstreamErasing(Camel):
    """A user who is being erased at their destinations too. Nothing of theirs is taken or sent."""

    since: datetime = Field(description="When it began.")
    left_upstream: int = Field(
        description="How many records and resources are not gone yet, or may be left for good.",
        examples=[12],
    )
    problem: str | None = Field(
        description="The last response that kept something from being deleted, as a code. Null:"
        " none did.",
        examples=["http_403"],
    )


class UserStatus(Camel):
    """A user, and the state of the grant at 1upHealth."""

    app_user_id: str = Field(description="The backend's name for the person.", examples=["alice"])
    oneup_user_id: str | None = Field(
        description="The user's id at 1upHealth. Null if it is not known.", examples=["251"]
    )
    grant: GrantState = Field(
        description="`active`: the grant works. `needs_authorization`: the person has to authorise"
        " again. `none`: there never was a grant."
    )
    grant_origin: Literal["user_management", "backend"] | None = Field(
        description="Who obtained the grant. A grant from the `backend` is renewed only with its"
        " refresh token. If 1upHealth refuses that token, the backend has to store a new grant."
    )
    destination: str = Field(
        description="Where what they bring goes: a name of the deployment's own.",
        examples=["oneup"],
    )
    paused: bool = Field(
        description="Nothing is sent for the user until an operator ends the pause."
    )
    created_at: datetime = Field(description="When the user was added.")
    sync_token: UUID = SYNC_TOKEN
    erasing_since: datetime | None = Field(
        description="Since when the user is being erased at their destinations too. Null: they are"
        " not."
    )
    erasing: UpstreamErasing | None = Field(
        description="How far that is. Null in lists, and in answers to what changes a user."
    )
    patients: dict[str, str] | None = Field(
        description="The ids of the Patients that were named for the user, by destination. Null if"
        " none was, in lists, and in answers to what changes something else.",
        examples=[{"hapi": "1234"}],
    )

    @classmethod
    def of(
        cls, row: UserRow, progress: Progress | None = None, patients: Patients | None = None
    ) -> "UserStatus":
        """The status of a row; `progress` is how far the user's erasing upstream is, `patients` are
        those that were named."""
        return cls(
            app_user_id=row.app_user_id,
            oneup_user_id=row.oneup_user_id,
            grant=GrantState(row.grant_state or GrantState.NONE),
            grant_origin=row.grant_origin,
            destination=row.destination,
            paused=row.paused,
            created_at=row.created_at,
            sync_token=row.sync_token,
            erasing_since=row.erasing_upstream_since,
            erasing=None
            if progress is None
            else UpstreamErasing(
                since=progress.since,
                left_upstream=progress.left + progress.lost,
                problem=progress.problem,
            ),
            patients=dict(patients) if patients else None,
        )


class UserList(Camel):
    """One page of users, in the order in which they were added."""

    users: list[UserStatus] = Field(description="The users.")
    next: NextPage = Field(
        examples=["/v1/users?grant=needs_authorization&after=0199c5a4-…&limit=100"]
    )


class UserSummary(Camel):
    """A user's uploads in numbers."""

    app_user_id: str = Field(description="The backend's name for the person.", examples=["alice"])
    grant: GrantState = Field(description="The state of the user's grant.")
    sync_token: UUID = SYNC_TOKEN
    complete: bool = Field(description="All uploads have ended: none is queued, sending or parked.")
    total: int = Field(description="Number of uploads.", examples=[250])
    by_status: dict[State, int] = Field(
        description="Number of uploads in each status.",
        examples=[{"delivered": 248, "rejected": 2}],
    )
    by_type: dict[str, dict[State, int]] = Field(
        description="The same for each resource type that the user has.",
        examples=[{"Observation": {"delivered": 248}, "Condition": {"rejected": 2}}],
    )

    @classmethod
    def of(cls, row: UserRow, summary: Summary) -> "UserSummary":
        """The summary of a user's uploads."""
        return cls(
            app_user_id=row.app_user_id,
            grant=GrantState(row.grant_state or GrantState.NONE),
            sync_token=row.sync_token,
            complete=summary.complete,
            total=sum(summary.by_state.values()),
            by_status=summary.by_state,
            by_type=summary.by_type,
        )


class ErasureStatus(Camel):
    """How far an erasure is. With the `upstream` `keep`, the data cannot be read any more as soon
    as this is answered."""

    status: Literal["erased", "erasing"] = Field(
        description="`erased`: nothing is left, and nothing is sent any more. `erasing`: workers"
        " still send some, or something is still at a destination.",
        examples=["erased"],
    )
    sending: int = Field(
        description="Uploads that workers are sending. Each ends by itself, at the latest with its"
        " lease.",
        examples=[0],
    )
    unreadable_by: datetime | None = Field(
        description="By this time nobody can read what backups and PostgreSQL's files still have of"
        " the user: the rotation period and the age of the oldest backup from now, at the latest."
        " Null if UPLIFT_BACKUPS_KEPT_DAYS is not set, and while something is deleted upstream.",
        examples=["2027-03-30T10:00:00Z"],
    )
    upstream: Upstream = Field(
        description="`delete`: what the user has at destinations is deleted first. `keep`: it"
        " stays.",
        examples=["delete"],
    )
    left_upstream: int = Field(
        description="With `delete`: how many records and resources are not gone yet. When it is"
        " `erased`: how many may be left at a destination.",
        examples=[0],
    )
    problem: str | None = Field(
        description="The last response that kept something from being deleted, as a code. Null:"
        " none did.",
        examples=["http_403"],
    )
    history: list[str] = Field(
        description="What the destinations keep as history of what is deleted, and how that is"
        " removed.",
        examples=[["hapi: HAPI keeps every version and each deletion as history…"]],
    )

    @classmethod
    def of(cls, erasure: Erasure) -> "ErasureStatus":
        """The state of an erasure."""
        return cls(
            status="erased" if erasure.done else "erasing",
            sending=erasure.sending,
            unreadable_by=erasure.unreadable_by,
            upstream=erasure.upstream,
            left_upstream=erasure.left_upstream,
            problem=erasure.problem,
            history=list(erasure.history),
        )


class BroughtGrant(Camel):
    """Tokens that the backend obtained itself."""

    model_config = ConfigDict(extra="forbid")

    access_token: str = Field(
        description="The access token of 1upHealth.",
        min_length=1,
        max_length=8192,
        pattern=VISIBLE,
        examples=["d5f0a1-access"],
    )
    refresh_token: str | None = Field(
        default=None,
        description="The refresh token. Without it the grant ends with the access token.",
        min_length=1,
        max_length=8192,
        pattern=VISIBLE,
        examples=["8ac1b2-refresh"],
    )
    expires_in: float = Field(
        gt=0,
        le=366 * 24 * 3600,
        description="Seconds until the access token expires.",
        examples=[7200],
    )


class NewDestination(Camel):
    """The destination to move a user to."""

    model_config = ConfigDict(extra="forbid")

    destination: str = Field(
        description="A name of the deployment's own.",
        min_length=1,
        max_length=100,
        pattern=PRINTABLE,
        examples=["hapi"],
    )


class NamedPatient(Camel):
    """The Patient that stands for the user at a destination."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(
        description="The Patient's id there, without `Patient/`.",
        pattern=PATIENT_ID,
        examples=["1234"],
    )
    destination: str | None = Field(
        None,
        description="A name of the deployment's own. Without it: the user's destination.",
        min_length=1,
        max_length=100,
        pattern=PRINTABLE,
        examples=["hapi"],
    )


class DeviceTokenRequest(Camel):
    """The device token to make."""

    model_config = ConfigDict(extra="forbid")

    expires_in: int = Field(gt=0, description="Seconds until the token expires.", examples=[3600])
    name: str = Field(
        default="device",
        min_length=1,
        max_length=100,
        pattern=PRINTABLE,
        description="Your own name for the device. Not the person's name.",
        examples=["phone-2"],
    )


class ListedDeviceToken(Camel):
    """A device token without its secret."""

    id: UUID = Field(description="The id of the token. With it you can revoke the token.")
    name: str = Field(description="The name that it was made with.", examples=["phone-2"])
    created_at: datetime = Field(description="When the token was made.")
    expires_at: datetime | None = Field(description="When the token expires.")


class DeviceTokenList(Camel):
    """The device tokens of a user that are neither revoked nor expired, the oldest first."""

    device_tokens: list[ListedDeviceToken] = Field(
        description="The tokens.",
        examples=[
            [
                {
                    "id": "01920000-0000-7000-8000-000000000002",
                    "name": "phone-2",
                    "createdAt": "2026-11-23T10:00:00Z",
                    "expiresAt": "2026-11-23T11:00:00Z",
                }
            ]
        ],
    )

    @classmethod
    def of(cls, tokens: Sequence[ListedCredential]) -> "DeviceTokenList":
        """The list of these."""
        return cls(
            device_tokens=[
                ListedDeviceToken(
                    id=each.id,
                    name=each.name,
                    created_at=each.created_at,
                    expires_at=each.expires_at,
                )
                for each in tokens
            ]
        )


class DeviceToken(Camel):
    """A device token."""

    id: UUID = Field(description="The id of the token. With it you can revoke the token.")
    token: str = Field(
        description="The token. It is shown only in this answer.", examples=["uplift_device_…"]
    )
    expires_at: datetime = Field(description="When the token expires.")
