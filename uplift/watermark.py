"""Which version of a record is newer, by what its server says: the watermark of a record. Pure.

A record keeps the times of its versions. The newest of those that count is its watermark; a version
that comes later with an earlier time is late. Times are health data: the ledger seals them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

# A clock that is further ahead than this is wrong, and nothing would ever be newer.
_MAX_AHEAD = timedelta(days=1)

# Of one record. More come only if many servers claim it.
_MAX_KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When a version was last changed, and who says so.

    `updated` is its meta.lastUpdated, `received` when the phone got it; both are comparable, or
    None. `server` is a keyed hash, if the version names its server. Versions of one record that do
    not are of one source.
    """

    updated: datetime | None = None
    received: datetime | None = None
    server: str | None = None

    @property
    def known(self) -> bool:
        """Whether there is a time to compare."""
        return self.updated is not None or self.received is not None


NO_TIMES = Times()


@dataclass(frozen=True, slots=True)
class Stamped:
    """The times of the version of that number."""

    version: int
    times: Times


def comparable(time: object, *, accepted_at: datetime) -> datetime | None:
    """The time in that text, in UTC; None if it is none, has no zone, or is in the future."""
    if not isinstance(time, str):
        return None
    try:
        found = datetime.fromisoformat(time.upper())
        if found.tzinfo is None:
            return None
        found = found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if found <= accepted_at + _MAX_AHEAD else None


def is_late(times: Times, counting: Iterable[Stamped]) -> bool:
    """Whether one of these versions is newer, as the same server says.

    meta.lastUpdated counts. When the phone got it counts only where neither version has that.
    """
    return any(
        _same_server(times, other.times) and _is_earlier(times, other.times) for other in counting
    )


def is_newest(times: Times, counting: Sequence[Stamped]) -> bool:
    """Whether the same server says that it is newer than one of these versions, and none newer."""
    return not is_late(times, counting) and any(
        _same_server(times, other.times) and _is_earlier(other.times, times) for other in counting
    )


def _same_server(one: Times, other: Times) -> bool:
    return None in (one.server, other.server) or one.server == other.server


def _is_earlier(one: Times, other: Times) -> bool:
    if one.updated is not None and other.updated is not None:
        return one.updated < other.updated
    if one.updated is not None or other.updated is not None:
        return False
    if one.received is None or other.received is None:
        return False
    return one.received < other.received


def noted(
    known: Iterable[Stamped], new: Stamped | None, *, keeps: Callable[[int], bool]
) -> list[Stamped]:
    """The times to keep of a record: those of versions that it `keeps`, and the new ones.

    Of one version and one server, only the newest.
    """
    newest: dict[tuple[int, str | None], Stamped] = {}
    for each in [*known, *([new] if new is not None and new.times.known else [])]:
        if each is not new and not keeps(each.version):
            continue
        key = (each.version, each.times.server)
        before = newest.pop(key, None)
        newest[key] = each if before is None else Stamped(each.version, _newest(each, before))
    return list(newest.values())[-_MAX_KEPT:]


def _newest(one: Stamped, other: Stamped) -> Times:
    updated = [each.times.updated for each in (one, other) if each.times.updated is not None]
    received = [each.times.received for each in (one, other) if each.times.received is not None]
    return replace(
        one.times,
        updated=max(updated, default=None),
        received=max(received, default=None),
    )


def to_bytes(stamped: Sequence[Stamped]) -> bytes:
    """The times as JSON, to be sealed."""
    return orjson.dumps(
        [
            [each.version, each.times.updated, each.times.received, each.times.server]
            for each in stamped
        ]
    )


def from_bytes(content: bytes) -> list[Stamped]:
    """What `to_bytes` wrote."""
    rows: list[list[Any]] = orjson.loads(content)
    return [
        Stamped(
            version,
            Times(updated=_time(updated), received=_time(received), server=server),
        )
        for version, updated, received, server in rows
    ]


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None
