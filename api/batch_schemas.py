"""What the API says of batches, as models."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from uplift.api.problems import TITLES
from uplift.api.schemas import Camel
from uplift.ledger.batches import BatchRow, LineRow
from uplift.lifecycle import State


class LineProblem(Camel):
    """Why a line is no upload: what a request of its own would have been answered."""

    status: int = Field(examples=[400])
    title: str = Field(examples=["The request is malformed"])
    detail: str = Field(examples=["The body is not JSON (RFC 8259, UTF-8)."])


class AcceptedLine(Camel):
    """A line that is an upload."""

    line: int = Field(description="Its number in the request, from 1.", examples=[1])
    id: UUID
    status: State | None = Field(description="Null if the upload is no longer kept.")
    duplicate: bool = Field(description="This content was accepted before: nothing new is sent.")


class ProblemLine(Camel):
    """A line that is no upload."""

    line: int = Field(description="Its number in the request, from 1.", examples=[2])
    problem: LineProblem


def line_of(row: LineRow) -> AcceptedLine | ProblemLine:
    """What became of a line."""
    if row.upload_id is not None:
        return AcceptedLine(
            line=row.line, id=row.upload_id, status=row.state, duplicate=row.duplicate
        )
    status = row.problem_status or 400
    return ProblemLine(
        line=row.line,
        problem=LineProblem(status=status, title=TITLES[status], detail=row.problem or ""),
    )


class BatchSummary(Camel):
    """A batch in numbers of lines; blank ones are not counted."""

    id: UUID
    user: str = Field(description="The backend's name of the person.", examples=["alice"])
    total: int = Field(description="Lines so far.", examples=[3])
    accepted: int = Field(description="Lines that are new uploads.", examples=[1])
    duplicates: int = Field(
        description="Lines whose content was accepted before, in this batch or earlier.",
        examples=[1],
    )
    problems: int = Field(description="Lines that are no uploads.", examples=[1])
    closed: bool = Field(
        description="Nothing more comes in. A batch whose process was killed stays open;"
        " `updatedAt` says since when nothing came."
    )
    broken: bool = Field(
        description="It ended before it was whole: the connection broke, or it had too many lines."
    )
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    status_url: str = Field(examples=["/v1/batches/0199c5a4-…"])
    lines_url: str = Field(examples=["/v1/batches/0199c5a4-…/lines"])

    @classmethod
    def of(cls, row: BatchRow) -> "BatchSummary":
        """The numbers of a row."""
        return cls(**_numbers(row))


class BatchStatus(BatchSummary):
    """A batch, and how far its uploads are."""

    by_status: dict[State, int] = Field(
        description="How many of its lines have their upload in each status.",
        examples=[{"delivered": 1, "sending": 1, "queued": 0}],
    )
    progress: float = Field(
        ge=0, le=1, description="The part of its lines that no worker has to do with any more."
    )
    settled: bool = Field(description="Nothing more comes in, and no upload is on its way.")

    @classmethod
    def counted(cls, row: BatchRow, by_status: dict[State, int]) -> "BatchStatus":
        """The status of a row."""
        working = sum(count for state, count in by_status.items() if state.in_progress)
        closed = row.closed_at is not None
        return cls(
            **_numbers(row),
            by_status={state: by_status.get(state, 0) for state in State},
            progress=max(0.0, 1 - working / row.lines) if row.lines else float(closed),
            settled=closed and not working,
        )


def _numbers(row: BatchRow) -> dict[str, object]:
    return {
        "id": row.id,
        "user": row.app_user_id,
        "total": row.lines,
        "accepted": row.accepted,
        "duplicates": row.duplicates,
        "problems": row.problems,
        "closed": row.closed_at is not None,
        "broken": row.broken,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "closed_at": row.closed_at,
        "status_url": f"/v1/batches/{row.id}",
        "lines_url": f"/v1/batches/{row.id}/lines",
    }


class BatchReceipt(BatchSummary):
    """A batch that was taken in, and what became of each of its lines."""

    lines: list[AcceptedLine | ProblemLine]


class BatchLines(Camel):
    """Lines of a batch, in their order."""

    lines: list[AcceptedLine | ProblemLine]
    next: str | None = Field(
        description="The address of the next page, if there may be one.",
        examples=["/v1/batches/0199c5a4-…/lines?after=500&limit=500"],
    )


class BatchList(Camel):
    """Batches, the newest first."""

    batches: list[BatchSummary]
    next: str | None = Field(
        description="The address of the next page, if there may be one.",
        examples=["/v1/batches?user=alice&after=0199c5a4-…&limit=100"],
    )
