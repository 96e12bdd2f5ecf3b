"""Counts a user's uploads by type and state."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, literal_column, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger.tables import Tombstone, Upload
from uplift.lifecycle import State


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of a user's uploads by resource type and state; a missing count is zero."""

    by_type: dict[str, dict[State, int]]

    @property
    def by_state(self) -> dict[State, int]:
        """Counts by state, of every state."""
        counts = dict.fromkeys(State, 0)
        for states in self.by_type.values():
            for state, count in states.items():
                counts[state] += count
        return counts

    @property
    def complete(self) -> bool:
        """Whether every upload is final."""
        return all(state.final for states in self.by_type.values() for state in states)


async def summarize(connection: AsyncConnection, user_id: UUID) -> Summary:
    """The summary of a user's uploads and tombstones."""
    uploads = (
        select(Upload.resource_type, Upload.state, func.count().label("count"))
        .where(Upload.user_id == user_id)
        .group_by(Upload.resource_type, Upload.state)
    )
    thinned: Select[Any] = (
        select(
            Tombstone.resource_type,
            literal_column(f"'{State.DELIVERED}'").label("state"),
            func.count().label("count"),
        )
        .where(Tombstone.user_id == user_id)
        .group_by(Tombstone.resource_type)
    )
    rows = await connection.execute(union_all(uploads, thinned).order_by("resource_type", "state"))
    by_type: dict[str, dict[State, int]] = {}
    for resource_type, state, count in rows:
        states = by_type.setdefault(resource_type, {})
        states[State(state)] = states.get(State(state), 0) + count
    return Summary(by_type)
