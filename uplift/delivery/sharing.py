"""Which uploads share a Bundle, and how large the next one of each may be. Pure.

A Bundle that is refused as a whole names no entry. So each upload remembers the largest Bundle that
it may still join, and one poisonous record costs those beside it few sends: n, n ÷ 8, then alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from uplift.destinations.destination import Destination

ANY = 0
"""The limit of an upload that no Bundle was refused with: as large as the destination takes."""

_SMALLER = 8
_TOO_LARGE = 413  # it speaks of the size, so half of it may fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A due upload. `limit` is the largest Bundle that it may join; `alone`: it joins none."""

    upload_id: UUID
    user_id: UUID
    fhir_version: str
    body_bytes: int
    limit: int = ANY
    alone: bool = False


def groups(due: Iterable[Candidate], destination: Destination) -> list[list[UUID]]:
    """Those that go there together. Each is in one group, which may have only that one.

    Whoever may still join any Bundle comes before those that were in one that failed.
    """
    most = destination.max_together
    by_request: dict[tuple[str, UUID | None], list[tuple[int, Candidate]]] = {}
    for each in due:
        limit = 1 if each.alone else min(each.limit or most, most)
        login = each.user_id if destination.needs_grant else None
        by_request.setdefault((each.fhir_version, login), []).append((limit, each))
    return [
        group
        for alike in by_request.values()
        for group in _packed(
            sorted(alike, key=lambda pair: -pair[0]), max_bytes=destination.bundle_bytes
        )
    ]


def _packed(candidates: Sequence[tuple[int, Candidate]], *, max_bytes: int) -> list[list[UUID]]:
    """In their order, which is that of falling limits."""
    packed: list[list[UUID]] = []
    room, free_bytes = 0, 0
    for limit, each in candidates:
        if not packed or len(packed[-1]) >= limit or room == 0 or each.body_bytes > free_bytes:
            packed.append([])
            room, free_bytes = limit, max_bytes
        packed[-1].append(each.upload_id)
        room -= 1
        free_bytes -= each.body_bytes
    return packed


def limits_at_claim(
    planned: Iterable[Sequence[UUID]], limits: Mapping[UUID, int]
) -> dict[UUID, int]:
    """The limits of those that will share a Bundle, as they are if nobody learns its outcome.

    They are written before the send, so that they are true although the process may be killed.
    """
    return {
        upload_id: after_unknown(limits[upload_id], len(group))
        for group in planned
        if len(group) > 1
        for upload_id in group
    }


def after_unknown(limit: int, size: int) -> int:
    """The limit after a Bundle of that size with an unknown outcome: it is sent again once."""
    return size if limit == ANY else max(1, size // _SMALLER)


def after_refused(size: int, status: int | None) -> int:
    """The limit after a Bundle of that size that was refused as a whole."""
    return max(1, size // (2 if status == _TOO_LARGE else _SMALLER))


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A record that is ready to be sent: its places, what it refers to literally, and its bytes.

    Both are `Type/id`, or `Type?query`, as the destination names them.
    """

    places: frozenset[str]
    refers_to: frozenset[str]
    body_bytes: int


def apart(members: Sequence[Member], *, max_bytes: int) -> list[list[int]]:
    """The positions of those that go in one Bundle; in most cases of all.

    No record shares a Bundle with what it refers to, and none is in it twice.
    """
    bundles: list[list[int]] = []
    for position, member in enumerate(members):
        for bundle in bundles:
            beside = [members[other] for other in bundle]
            used = sum(other.body_bytes for other in beside)
            if used + member.body_bytes <= max_bytes and not any(
                _exclude(member, other) for other in beside
            ):
                bundle.append(position)
                break
        else:
            bundles.append([position])
    return bundles


def _exclude(one: Member, other: Member) -> bool:
    return bool(one.places & (other.places | other.refers_to) or one.refers_to & other.places)
