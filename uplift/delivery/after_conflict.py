"""What follows where a PUT was refused because of what is there. Pure.

A 409 or a 412 may mean that another version is there, or that another request was at the same
resource at the same time. A read of the resource tells.
"""

from dataclasses import dataclass
from enum import StrEnum

from uplift.destinations.destination import Destination, OnDeleted, OnForeign
from uplift.destinations.responses import SEVERAL_MATCH, Response, ResponseKind


class Next(StrEnum):
    """What follows."""

    DELIVERED = "delivered"  # ours is there
    SEND_AGAIN = "send_again"  # nothing but a lock: later, with the same precondition
    READ_AGAIN = "read_again"  # the read told nothing
    OVERWRITE = "overwrite"  # an own version of unknown outcome is there
    OVERWRITE_FOREIGN = "overwrite_foreign"  # somebody else's content is there: say so
    FOREIGN = "foreign"  # the same, and a person decides
    DELETED = "deleted"  # it was there, and somebody deleted it
    CREATE = "create"  # the same, and the settings say that it comes back
    SEVERAL = "several"  # several resources are this record: a person decides


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A PUT that was refused.

    `if_match` is the version that it asked for; None if it was a create. `older_in_doubt` is
    whether an older version of ours may be there. `decided` is whether a person sent it again.
    """

    if_match: str | None
    older_in_doubt: bool
    decided: bool = False


def after_conflict(
    refused: Refused, found: Response, destination: Destination, *, is_ours: bool
) -> Next:
    """What follows, by what a read found. `is_ours`: it found what was sent."""
    there = found.receipt.version if found.receipt is not None else None
    match found.kind:
        # The version before looks like ours where ours only removes what servers add.
        case ResponseKind.FOUND if there is not None and there == refused.if_match:
            return Next.SEND_AGAIN
        case ResponseKind.FOUND if is_ours:
            return Next.DELIVERED
        case ResponseKind.FOUND if refused.if_match is None:
            return Next.SEND_AGAIN
        case ResponseKind.FOUND:
            return _after_other_content(refused, destination)
        case ResponseKind.ABSENT if refused.if_match is None:
            return Next.SEND_AGAIN  # a create: the resource of whoever held the lock is not there
        case ResponseKind.ABSENT:
            return after_deletion(destination, decided=refused.decided)
    return Next.SEVERAL if found.code == SEVERAL_MATCH else Next.READ_AGAIN


def after_deletion(destination: Destination, *, decided: bool) -> Next:
    """What follows where a resource is gone of which there is a receipt."""
    if decided or destination.on_deleted is OnDeleted.CREATE:
        return Next.CREATE
    return Next.DELETED


def _after_other_content(refused: Refused, destination: Destination) -> Next:
    if refused.older_in_doubt:
        return Next.OVERWRITE
    if refused.decided or destination.on_foreign is OnForeign.OVERWRITE:
        return Next.OVERWRITE_FOREIGN
    return Next.FOREIGN
