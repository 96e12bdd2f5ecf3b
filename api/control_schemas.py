"""The API's JSON about redriving and pausing, as models."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from uplift.api.schemas import AppUserId, Camel, Instant, ResourceType
from uplift.control.redrive import Tally
from uplift.fhir.versions import FhirVersion
from uplift.ledger.dead_letters import Left
from uplift.ledger.filters import Filter
from uplift.ledger.pauses import PauseRow
from uplift.lifecycle import DEAD_LETTERS, Reason, State

# With the values written out, because the schema of a request body has no references.
_Reason = Annotated[Reason, WithJsonSchema({"type": "string", "enum": list(Reason)})]

_Version = Annotated[FhirVersion, WithJsonSchema({"type": "string", "enum": list(FhirVersion)})]


def _dead_letter(state: State) -> State:
    if state not in DEAD_LETTERS:
        raise ValueError("Only rejected, refused and expired uploads can be redriven.")
    return state


_DeadLetter = Annotated[
    State,
    AfterValidator(_dead_letter),
    WithJsonSchema({"type": "string", "enum": sorted(DEAD_LETTERS)}),
]


class _Chosen(Camel):
    """The filters that say which uploads are meant. A list of uploads spells them the same."""

    reason: _Reason | None = Field(
        default=None, description="Only uploads with this reason.", examples=["gave_up"]
    )
    resource_type: ResourceType | None = Field(
        default=None, description="Only resources of this type.", examples=["Observation"]
    )
    fhir_version: _Version | None = Field(
        default=None, description="Only resources of this FHIR version.", examples=["R4"]
    )
    user: AppUserId | None = Field(
        default=None, description="Only uploads of this user.", examples=["alice"]
    )
    batch: UUID | None = Field(default=None, description="Only uploads that this batch created.")
    updated_since: Instant | None = Field(
        default=None,
        description="Only uploads with `updatedAt` at or after this.",
        examples=["2026-11-23T10:00:00Z"],
    )
    updated_before: Instant | None = Field(
        default=None,
        description="Only uploads with `updatedAt` before this.",
        examples=["2026-11-23T12:00:00Z"],
    )

    @property
    def states(self) -> Sequence[State]:
        """The statuses that are meant; none if all of them are."""
        return ()

    def filter(self, user_id: UUID | None) -> Filter:
        """The ledger's filter. `user_id` is the ledger's id of `user`."""
        return Filter(
            states=self.states,
            reason=self.reason,
            resource_type=self.resource_type,
            fhir_version=self.fhir_version,
            user_id=user_id,
            batch_id=self.batch,
            since=self.updated_since,
            before=self.updated_before,
        )

    def check(self, what: str, *, everything: bool) -> None:
        """Raises ValueError unless there is either a filter or `all`.

        An empty filter is easily sent by mistake.
        """
        # The user is looked up later. Here it only matters whether one is given.
        narrows = self.user is not None or self.filter(None).narrows
        if narrows and everything:
            raise ValueError(
                f'"all" selects {what}. Send it without filters, or send only filters.'
            )
        if not narrows and not everything:
            raise ValueError(f'Give a filter, or send {{"all": true}} to select {what}.')


class RedriveRequest(_Chosen):
    """Which dead letters to redrive: those that match every given filter, or `all`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"status": ["expired"], "updatedSince": "2026-11-23T10:00:00Z"},
                {"all": True},
            ]
        },
    )

    all: Literal[True] | None = Field(
        default=None,
        description="Redrive every dead letter. Only without filters.",
        examples=[True],
    )
    status: list[_DeadLetter] = Field(
        default=[], description="Only uploads with one of these statuses.", examples=[["expired"]]
    )
    after: UUID | None = Field(
        default=None, description="`after` of the previous answer, to go on from there."
    )

    @property
    def states(self) -> Sequence[State]:
        """See `_Chosen`."""
        return self.status

    @model_validator(mode="after")
    def _has_filters_or_all(self) -> "RedriveRequest":
        self.check("every dead letter", everything=bool(self.all))
        return self


class TryNowRequest(_Chosen):
    """Which waiting uploads to try now: those that match every given filter, or `all`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "held"}, {"all": True}]}
    )

    all: Literal[True] | None = Field(
        default=None,
        description="Try every waiting upload. Only without filters.",
        examples=[True],
    )

    @model_validator(mode="after")
    def _has_filters_or_all(self) -> "TryNowRequest":
        self.check("every waiting upload", everything=bool(self.all))
        return self


class TryNowReport(Camel):
    """The number of uploads that are tried earlier."""

    tried: int = Field(description="Uploads that are due earlier than before.", examples=[248])


class RedriveReport(Camel):
    """The numbers of a redrive."""

    queued: int = Field(description="Uploads that are queued again.", examples=[248])
    superseded: int = Field(
        description="Uploads that are superseded by a newer version of their record.",
        examples=[1],
    )
    left: dict[Left, int] = Field(
        description="Uploads that stay as they are, by the cause. `no_body`: the resource is no"
        " longer kept. `newer_maybe_sent`: a newer version of the record ended and may be at"
        " the destination. `not_dead`: the upload changed at this moment.",
        examples=[{"no_body": 2}],
    )
    after: UUID | None = Field(
        description="Send this with the same filter to go on. Null if nothing is left.",
        examples=[None],
    )

    @classmethod
    def of(cls, tally: Tally) -> "RedriveReport":
        """The report of a tally."""
        return cls(
            queued=tally.queued,
            superseded=tally.superseded,
            left=dict(tally.left),
            after=tally.after,
        )


class PauseStatus(Camel):
    """A pause."""

    user: str | None = Field(description="The paused user. Null: everybody.", examples=["alice"])
    since: datetime = Field(description="When the pause began.")

    @classmethod
    def of(cls, row: PauseRow) -> "PauseStatus":
        """The status of a row."""
        return cls(user=row.app_user_id, since=row.since)


class PauseList(Camel):
    """All pauses, the oldest first."""

    pauses: list[PauseStatus] = Field(
        description="The pauses.", examples=[[{"user": "alice", "since": "2026-11-23T10:00:00Z"}]]
    )
