"""The options with which a command says which uploads it means. The API spells them the same."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from uplift.cli.session import errors, find_person
from uplift.fhir.versions import FhirVersion
from uplift.ledger.database import Database
from uplift.ledger.filters import Filter
from uplift.lifecycle import Reason, State

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]

Ids = Annotated[list[UUID] | None, typer.Argument(help="Only these uploads.")]
User = Annotated[str, typer.Option(help="Only of this person, by your own name for them.")]
Batch = Annotated[UUID | None, typer.Option(help="Only those of this batch.")]
Status = Annotated[list[State] | None, typer.Option(help="Only in this status. May be repeated.")]
Why = Annotated[Reason | None, typer.Option("--reason", help="Only with this reason.")]
ResourceType = Annotated[str, typer.Option(help="Only of this resource type.")]
Version = Annotated[
    FhirVersion | None, typer.Option("--fhir-version", help="Only of this FHIR version.")
]
UpdatedSince = Annotated[
    datetime | None, typer.Option(formats=_TIMES, help="Only changed at or after this time, UTC.")
]
UpdatedBefore = Annotated[
    datetime | None, typer.Option(formats=_TIMES, help="Only changed before this time, UTC.")
]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadFilter:
    """The options as they were typed."""

    user: str
    batch: UUID | None
    status: list[State] | None
    reason: Reason | None
    resource_type: str
    fhir_version: FhirVersion | None
    updated_since: datetime | None
    updated_before: datetime | None

    @property
    def narrows(self) -> bool:
        """Whether it leaves any upload out."""
        return bool(self.user) or self._filter(None).narrows

    async def find(self, database: Database) -> Filter:
        """The ledger's filter. Ends the command if there is no such user."""
        return self._filter(await find_person(database, self.user))

    def _filter(self, user_id: UUID | None) -> Filter:
        return Filter(
            states=self.status or [],
            reason=self.reason,
            resource_type=self.resource_type or None,
            fhir_version=self.fhir_version,
            user_id=user_id,
            batch_id=self.batch,
            since=self.updated_since.replace(tzinfo=UTC) if self.updated_since else None,
            before=self.updated_before.replace(tzinfo=UTC) if self.updated_before else None,
        )


def require_one_choice(ids: list[UUID] | None, chosen: UploadFilter, *, everything: bool) -> None:
    """End the command unless exactly one of ids, options and --all says which uploads."""
    if [bool(ids), chosen.narrows, everything].count(True) != 1:
        errors.print(
            "Name uploads by their ids, or by options, or use --all: exactly one of these."
        )
        raise typer.Exit(2)
