"""Requests and replies as values, and what a reply means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar

import msgspec

from .errors import CallError, NotUplift, kind_of
from .models import Problem

Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request. `target` is path and query: the key goes to no other host."""

    method: str
    target: str
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response, with the names of its headers in small letters."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    def retry_after(self) -> float | None:
        """Seconds that `Retry-After` asks for, in either of its forms (RFC 9110, 10.2.3)."""
        value = self.headers.get("retry-after", "")
        if value.isascii() and value.isdigit():
            return float(value)
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())


@dataclass(frozen=True, slots=True)
class NoReply:
    """There is no response, and why."""

    reason: str
    maybe_received: bool
    """Whether the API may have received the request."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """An operation of the API: its request, and how to read its successful reply."""

    request: Request
    read: Callable[[Reply], Result]
    repeatable: bool = True
    """Whether a second request does no harm if the first one succeeded."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a list, and the call for the next one."""

    items: list[Item]
    next: "Call[Page[Item]] | None"


def json_of(shape: type[Result]) -> Callable[[Reply], Result]:
    """Reads a reply as this shape. Raises NotUplift if it is something else."""
    decoder = msgspec.json.Decoder(shape)

    def read(reply: Reply) -> Result:
        try:
            return decoder.decode(reply.content)
        except msgspec.DecodeError as error:
            raise NotUplift("What answers there is not Uplift's API.") from error

    return read


def error_of(reply: Reply) -> CallError:
    """The error for a reply that is not a success."""
    if 300 <= reply.status < 400:
        return NotUplift(f"The answer is {reply.status}, which leads to another address.")
    problem = Problem()
    if "problem+json" in reply.headers.get("content-type", ""):
        try:
            problem = msgspec.json.decode(reply.content, type=Problem)
        except msgspec.DecodeError:
            problem = Problem()
    elif reply.status in (404, 405):
        return NotUplift("What answers there is not Uplift's API.")
    return kind_of(reply.status)(
        reply.status,
        code=problem.code,
        title=problem.title,
        detail=problem.detail,
        errors=problem.errors,
        request_id=reply.headers.get("x-request-id"),
        retry_after=reply.retry_after(),
    )
