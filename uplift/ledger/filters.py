"""Which uploads somebody means: to list, redrive or cancel them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement

from uplift.fhir.versions import FhirVersion
from uplift.ledger.tables import Upload, state_is
from uplift.lifecycle import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Uploads that match all of this. What is not given matches every upload.

    `since` and `before` are about the last change: at `since` or later, and earlier than `before`.
    """

    states: Sequence[State] = ()
    reason: str | None = None
    resource_type: str | None = None
    fhir_version: FhirVersion | None = None
    user_id: UUID | None = None
    batch_id: UUID | None = None
    since: datetime | None = None
    before: datetime | None = None

    @property
    def narrows(self) -> bool:
        """Whether it leaves any upload out."""
        return any(getattr(self, field.name) not in ((), [], None) for field in fields(self))

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same as conditions on `Upload`, all of which must be true."""
        conditions: list[ColumnElement[bool]] = []
        if self.states:
            conditions.append(state_is(Upload.state, *self.states))
        if self.reason is not None:
            conditions.append(Upload.reason == self.reason)
        if self.resource_type is not None:
            conditions.append(Upload.resource_type == self.resource_type)
        if self.fhir_version is not None:
            conditions.append(Upload.fhir_version == self.fhir_version.value)
        if self.user_id is not None:
            conditions.append(Upload.user_id == self.user_id)
        if self.batch_id is not None:
            conditions.append(Upload.batch_id == self.batch_id)
        if self.since is not None:
            conditions.append(Upload.updated_at >= self.since)
        if self.before is not None:
            conditions.append(Upload.updated_at < self.before)
        return conditions
