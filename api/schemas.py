"""The API's JSON about uploads, and what all models share. OpenAPI is generated from the models."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from uplift.ledger.attempts import AttemptRow
from uplift.lifecycle import State
from uplift.reading.status import Status
from uplift.users.names import MAX_NAME, PRINTABLE

AppUserId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=PRINTABLE)]
RESOURCE_TYPE = r"^[A-Za-z]{1,64}$"
ResourceType = Annotated[str, StringConstraints(pattern=RESOURCE_TYPE)]


def _date_and_time(value: object) -> object:
    # Pydantic reads "2026" as seconds after 1970. A redrive since then would select everything.
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt ]", value, re.ASCII):
        return value
    raise ValueError("Send a date and time as in RFC 3339, such as 2026-11-23T10:00:00Z.")


Instant = Annotated[AwareDatetime, BeforeValidator(_date_and_time)]
NextPage = Annotated[
    str | None, Field(description="The address of the next page. Null if there is none.")
]


class Camel(BaseModel):
    """A model whose JSON names are in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Receipt(Camel):
    """What the destination calls the resource that it stored."""

    id: str | None = Field(
        description="The resource's id at the destination. Null if it named none.",
        examples=["A1-77"],
    )
    version: str | None = Field(
        description="The resource's version at the destination. Null if it named none.",
        examples=["1"],
    )
    stored_at: datetime | None = Field(
        default=None,
        description="When the destination stored it, by its own clock (`meta.lastUpdated`). If"
        " it did not say so: when Uplift learned of it.",
    )
    sha256: str | None = Field(
        default=None,
        description="SHA-256 of the upload's bytes, in hexadecimal digits.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    sent_sha256: str | None = Field(
        default=None,
        description="SHA-256 of the bytes that were sent, where the destination gets another form:"
        " with an id that Uplift derives, and other references. Null if they are the upload's.",
    )


class Issue(Camel):
    """One finding of the validation, as in a FHIR OperationOutcome. It never quotes the record."""

    severity: Literal["fatal", "error", "warning", "information"] = Field(
        description="How serious it is."
    )
    code: str = Field(description="The kind of finding, from FHIR's list.", examples=["required"])
    expression: list[str] = Field(
        description="The elements concerned.", examples=[["Condition.subject"]]
    )
    diagnostics: str = Field(description="What is wrong.", examples=["This element is required."])


class Issues(Camel):
    """What the validation found."""

    total: int = Field(default=0, description="Number of issues found.")
    issue: list[Issue] = Field(default=[], description="The first 50 issues.")


class UploadStatus(Camel):
    """An upload: its status, and what happened to it."""

    id: UUID = Field(description="The id of the upload.")
    status: State = Field(description="Where the upload is.")
    reason: str | None = Field(description="Why it has this status.", examples=["new"])
    final: bool = Field(description="The status does not change any more by itself.")
    user: str = Field(
        description="The backend's name for the person (`appUserId`).", examples=["alice"]
    )
    destination: str = Field(description="Where it goes.", examples=["oneup"])
    fhir_version: str = Field(description="The FHIR version of the resource.", examples=["R4"])
    resource_type: str = Field(description="The type of the resource.", examples=["Condition"])
    batch: UUID | None = Field(description="The batch that created the upload. Null if none did.")
    attempts: int = Field(description="Counted attempts to deliver it.", examples=[0])
    duplicate: bool = Field(
        description="The same content was accepted before. Nothing new is sent."
    )
    possible_duplicate: bool = Field(
        description="It was sent again after an unknown outcome. The destination may have it twice."
    )
    maybe_overwritten: bool = Field(
        description="An older version was sent with an unknown outcome, and may be stored over it."
    )
    maybe_stored: bool = Field(
        description="The destination may have it, now or later, although no response says so."
    )
    cancel_requested: bool = Field(
        description="Its owner asked to cancel it after it was possibly sent."
    )
    created_at: datetime = Field(description="When it was accepted.")
    updated_at: datetime = Field(description="When its status last changed.")
    next_attempt_at: datetime | None = Field(
        description="When the next attempt is due. Null if none is planned."
    )
    delivered_at: datetime | None = Field(description="When it was delivered. Null until then.")
    receipt: Receipt | None = Field(
        description="What the destination calls the resource. Null until it is delivered."
    )
    issues: Issues = Field(description="What the validation found.")
    last_response: str | None = Field(
        description="The last response of the destination, or why there was none. Null before the"
        " first attempt.",
        examples=["http_201"],
    )
    status_url: str = Field(
        description="The address of this status.", examples=["/v1/uploads/0199c5a4-…"]
    )

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
            destination=row.destination,
            fhir_version=row.fhir_version,
            resource_type=row.resource_type,
            batch=row.batch_id,
            attempts=row.attempts,
            duplicate=duplicate,
            possible_duplicate=row.possible_duplicate,
            maybe_overwritten=row.maybe_overwritten,
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


def dump_status(status: Status, *, duplicate: bool = False) -> bytes:
    """`UploadStatus.of` as JSON. Of what has no receipt and no issues, without the model: so is
    every new upload, and the model takes five times as long."""
    row = status.upload
    if status.receipt is not None or row.issues:
        shown = UploadStatus.of(status, duplicate=duplicate)
        return shown.model_dump_json(by_alias=True).encode()
    return orjson.dumps(
        {
            "id": row.id,
            "status": row.state,
            "reason": row.reason,
            "final": row.state.final,
            "user": row.app_user_id,
            "destination": row.destination,
            "fhirVersion": row.fhir_version,
            "resourceType": row.resource_type,
            "batch": row.batch_id,
            "attempts": row.attempts,
            "duplicate": duplicate,
            "possibleDuplicate": row.possible_duplicate,
            "maybeOverwritten": row.maybe_overwritten,
            "maybeStored": row.maybe_sent,
            "cancelRequested": row.cancel_requested,
            "createdAt": row.created_at,
            "updatedAt": row.updated_at,
            "nextAttemptAt": row.next_attempt_at,
            "deliveredAt": row.delivered_at,
            "receipt": None,
            "issues": {"total": 0, "issue": []},
            "lastResponse": row.last_response,
            "statusUrl": f"/v1/uploads/{row.id}",
        },
        option=orjson.OPT_UTC_Z,
    )


class UploadList(Camel):
    """One page of uploads, in the order of acceptance."""

    uploads: list[UploadStatus] = Field(description="The uploads.")
    next: NextPage


class Attempt(Camel):
    """One attempt to deliver an upload."""

    opened_at: datetime = Field(description="When it began.")
    closed_at: datetime | None = Field(
        description="When it ended. Null, like all below, while it runs, or if its worker stopped."
    )
    outcome: str | None = Field(
        description="What it came to: `stored`, or why the destination does not have it yet.",
        examples=["stored"],
    )
    status_code: int | None = Field(
        description="The status code of the destination's response. Null without a response.",
        examples=[201],
    )
    duration_ms: int | None = Field(
        description="How long it took, in milliseconds.", examples=[412]
    )


class AttemptList(Camel):
    """The latest attempts to deliver an upload, newest first."""

    attempts: list[Attempt] = Field(
        description="The attempts, at most 100.",
        examples=[
            [
                {
                    "openedAt": "2026-11-23T10:00:05Z",
                    "closedAt": "2026-11-23T10:00:06Z",
                    "outcome": "stored",
                    "statusCode": 201,
                    "durationMs": 412,
                }
            ]
        ],
    )

    @classmethod
    def of(cls, rows: Sequence[AttemptRow]) -> "AttemptList":
        """These attempts."""
        return cls(attempts=[Attempt(**asdict(row)) for row in rows])
