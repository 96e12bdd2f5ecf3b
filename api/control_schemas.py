"""What the API says of redriving and pausing, as models."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from uplift.api.schemas import AppUserId, Camel, Instant, ResourceType
from uplift.control.redrive import Tally
from uplift.ledger.dead_letters import Left
from uplift.ledger.filters import Filter
from uplift.ledger.pauses import PauseRow
from uplift.lifecycle import DEAD_LETTERS, Reason, State

# Spelled out: the schema of a request body stands by itself, without references.
_Reason = Annotated[Reason, WithJsonSchema({"type": "string", "enum": list(Reason)})]


def _dead_letter(state: State) -> State:
    if state not in DEAD_LETTERS:
        raise ValueError("Only what is rejected, refused or expired can be redriven.")
    return state


_DeadLetter = Annotated[
    State,
    AfterValidator(_dead_letter),
    WithJsonSchema({"type": "string", "enum": sorted(DEAD_LETTERS)}),
]


class RedriveRequest(Camel):
    """Which dead letters: those of which all that is given is true. `all` says that none is left
    out, because an empty filter is too easily sent by mistake."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"status": ["expired"], "updatedSince": "2026-11-23T10:00:00Z"},
                {"all": True},
            ]
        },
    )

    all: Literal[True] | None = Field(default=None, examples=[True])
    status: list[_DeadLetter] = Field(default=[], examples=[["expired"]])
    reason: _Reason | None = Field(default=None, examples=["gave_up"])
    resource_type: ResourceType | None = Field(default=None, examples=["Observation"])
    user: AppUserId | None = Field(default=None, examples=["alice"])
    batch: UUID | None = None
    updated_since: Instant | None = Field(
        default=None,
        description="Outcome at or after this.",
        examples=["2026-11-23T10:00:00Z"],
    )
    updated_before: Instant | None = Field(
        default=None, description="Outcome before this.", examples=["2026-11-23T12:00:00Z"]
    )
    after: UUID | None = Field(
        default=None, description="`after` of the answer before, to go on where it stopped."
    )

    @model_validator(mode="after")
    def _says_how_far_it_goes(self) -> "RedriveRequest":
        # A user is resolved later; here only whether there is one counts.
        narrows = self.user is not None or self.filter(None).narrows
        if narrows and self.all:
            raise ValueError('"all" leaves nothing out: send it alone, or the filter without it.')
        if not narrows and not self.all:
            raise ValueError('Name what to redrive, or send {"all": true} for every dead letter.')
        return self

    def filter(self, user_id: UUID | None) -> Filter:
        """The same as the ledger's filter; `user_id` is that of `user`."""
        return Filter(
            states=self.status,
            reason=self.reason,
            resource_type=self.resource_type,
            user_id=user_id,
            batch_id=self.batch,
            since=self.updated_since,
            before=self.updated_before,
        )


class RedriveReport(Camel):
    """What became of dead letters, in numbers."""

    queued: int = Field(description="Begin anew.", examples=[248])
    superseded: int = Field(
        description="Were overtaken by a newer version of their record.", examples=[1]
    )
    left: dict[Left, int] = Field(
        description="Stay as they are: no_body is not kept any more; newer_maybe_sent waits for a"
        " newer version that ended while it may be at 1upHealth; not_dead just changed.",
        examples=[{"no_body": 2}],
    )
    after: UUID | None = Field(
        description="There may be more: send this with the same filter. Null at the end.",
        examples=[None],
    )

    @classmethod
    def of(cls, tally: Tally) -> "RedriveReport":
        """The numbers of a tally."""
        return cls(
            queued=tally.queued,
            superseded=tally.superseded,
            left=dict(tally.left),
            after=tally.after,
        )


class PauseStatus(Camel):
    """A pause."""

    user: str | None = Field(description="Who is paused; null is everybody.", examples=["alice"])
    since: datetime

    @classmethod
    def of(cls, row: PauseRow) -> "PauseStatus":
        """The status of a row."""
        return cls(user=row.app_user_id, since=row.since)


class PauseList(Camel):
    """All pauses, the oldest first."""

    pauses: list[PauseStatus] = Field(examples=[[{"user": None, "since": "2026-11-23T10:00:00Z"}]])
