"""The API's JSON about batches, as models."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import Field

from uplift.api.schemas import Camel, NextPage
from uplift.ledger.batches import BatchRow, LineRow
from uplift.lifecycle import State
from uplift.problem_types import BY_CODE, ProblemType


class LineProblem(Camel):
    """Why a line is not an upload. A single request with this line gets the same problem."""

    status: int = Field(description="The HTTP status of the problem.", examples=[400])
    code: str = Field(
        description="The kind of problem, for programs. `type` leads to what to do.",
        examples=["not_json"],
    )
    type: str = Field(
        description="The page about this kind of problem.", examples=[ProblemType.NOT_JSON.uri]
    )
    title: str = Field(
        description="The kind of problem, in words.",
        examples=[ProblemType.NOT_JSON.title],
    )
    detail: str = Field(
        description="What was wrong, and what to do.",
        examples=["The body is not JSON (RFC 8259, UTF-8)."],
    )


class BatchLine(Camel):
    """The result of a line: an upload, with `id`, `status` and `duplicate`, or a `problem`.

    One model, because generators are poor at unions. What is not set is not in the JSON.
    """

    line: int = Field(description="The number of the line in the request, from 1.", examples=[1])
    id: UUID | None = Field(default=None, description="The id of the upload.")
    status: State | None = Field(
        default=None,
        description="The status of the upload. Null if the upload is no longer kept.",
    )
    duplicate: bool = Field(
        default=False, description="The same content was accepted before. Nothing new is sent."
    )
    problem: LineProblem | None = Field(
        default=None, description="Why the line did not become an upload."
    )


def line_of(row: LineRow) -> BatchLine:
    """The result of a line."""
    if row.upload_id is not None:
        return BatchLine(line=row.line, id=row.upload_id, status=row.state, duplicate=row.duplicate)
    kind = BY_CODE[row.problem_code or ""]
    return BatchLine(
        line=row.line,
        problem=LineProblem(
            type=kind.uri,
            code=kind.code,
            title=kind.title,
            status=kind.status,
            detail=row.problem or "",
        ),
    )


def dump_lines(rows: Sequence[LineRow]) -> bytes:
    """The results of these lines as JSON, without the brackets around them.

    What the models would write, for uploads without the models: a batch has thousands of lines.
    """
    return orjson.dumps([_dumped(row) for row in rows])[1:-1]


def dump_queued(lines: Sequence[tuple[int, str]]) -> bytes:
    """`dump_lines` of new uploads: their line, and their id."""
    rest = {"status": State.QUEUED, "duplicate": False}
    return orjson.dumps([{"line": line, "id": id_, **rest} for line, id_ in lines])[1:-1]


def _dumped(row: LineRow) -> dict[str, Any]:
    if row.upload_id is None:
        return line_of(row).model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        "line": row.line,
        "id": row.upload_id,
        "status": row.state,
        "duplicate": row.duplicate,
    }


class BatchSummary(Camel):
    """A batch in numbers. Blank lines are not counted."""

    id: UUID = Field(description="The id of the batch.")
    user: str = Field(
        description="The backend's name for the person (`appUserId`).", examples=["alice"]
    )
    total: int = Field(description="Lines received until now.", examples=[3])
    accepted: int = Field(description="Lines that are new uploads.", examples=[1])
    duplicates: int = Field(
        description="Lines with content that was accepted before, in this batch or earlier.",
        examples=[1],
    )
    problems: int = Field(description="Lines that are not uploads.", examples=[1])
    closed: bool = Field(
        description="No more lines arrive. If the API process was killed, this stays false."
        " `updatedAt` says when the last line came."
    )
    broken: bool = Field(
        description="The batch is not complete: the connection broke, or it had too many lines."
    )
    created_at: datetime = Field(description="When the request began.")
    updated_at: datetime = Field(description="When the last lines were committed.")
    closed_at: datetime | None = Field(description="When the batch was closed. Null until then.")
    status_url: str = Field(
        description="The address of this batch.", examples=["/v1/batches/0199c5a4-…"]
    )
    lines_url: str = Field(
        description="The address of its lines.", examples=["/v1/batches/0199c5a4-…/lines"]
    )

    @classmethod
    def of(cls, row: BatchRow) -> "BatchSummary":
        """The numbers of a row."""
        return cls(**_numbers(row))


class BatchStatus(BatchSummary):
    """A batch, and the progress of its uploads."""

    by_status: dict[State, int] = Field(
        description="Number of lines by the status of their upload.",
        examples=[{"delivered": 1, "sending": 1, "queued": 0}],
    )
    progress: float = Field(
        ge=0,
        le=1,
        description="The part of the lines for which the workers have nothing left to do.",
    )
    settled: bool = Field(description="No more lines arrive, and no upload is queued or sending.")

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


class BatchResult(BatchSummary):
    """The answer to a batch: its numbers, and the result of each line."""

    lines: list[BatchLine] = Field(description="One result for each line.")


class BatchLines(Camel):
    """One page of the lines of a batch, in their order."""

    lines: list[BatchLine] = Field(description="One result for each line.")
    next: NextPage = Field(examples=["/v1/batches/0199c5a4-…/lines?after=500&limit=500"])


class BatchList(Camel):
    """One page of batches, the newest first."""

    batches: list[BatchSummary] = Field(description="The batches.")
    next: NextPage = Field(examples=["/v1/batches?user=alice&after=0199c5a4-…&limit=100"])
