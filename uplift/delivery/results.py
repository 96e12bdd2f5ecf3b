"""What the steps of an attempt come to: frozen values that only travel forward."""

from dataclasses import dataclass, field
from typing import Any

from uplift.destinations.responses import Response
from uplift.errors import NeedsAuthorization, TokenUnavailable
from uplift.ledger.leases import Claim
from uplift.sealing import UserKey


@dataclass(frozen=True, slots=True)
class Opened:
    """A claimed upload with its body decrypted, and the key of its user.

    `delivered_id` and `delivered_version` are what the destination calls the version of the record
    that was delivered last; None if none was, or if the destination did not say.
    """

    claim: Claim
    key: UserKey
    body: bytes = field(repr=False)
    delivered_id: str | None = None
    delivered_version: str | None = None

    @property
    def has_older_without_receipt(self) -> bool:
        """Whether other content of the record is, or may be, where no receipt tells it apart."""
        delivered = self.claim.record_receipt is not None
        return self.claim.older_in_doubt or (delivered and self.delivered_id is None)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Its owner withdrew it."""


@dataclass(frozen=True, slots=True)
class Collides:
    """Another record is, or will be, at the destination under the same type and id."""


@dataclass(frozen=True, slots=True)
class NoDestination:
    """The settings have no destination of its name any more."""


@dataclass(frozen=True, slots=True)
class CannotOpen:
    """A sealed value of it does not open with the keys of this deployment."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """It is not valid FHIR. The issues are in the `Result`."""


@dataclass(frozen=True, slots=True)
class Unvalidated:
    """A limit of validation refuses it. The issues are in the `Result`."""


@dataclass(frozen=True, slots=True)
class Found:
    """A look-up found its content at the destination."""

    response: Response


@dataclass(frozen=True, slots=True)
class NewerFound:
    """The destination has newer content, which the ledger lost in a restore."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """No look-up found its content. `can_tell`: unless it comes late, it is not there."""

    can_tell: bool = True


@dataclass(frozen=True, slots=True)
class SearchEmpty:
    """A search found nothing, and the destination's index may be late: search again later."""


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The ledger's clock stepped, so what it may have sent may not have had its time to arrive:
    nothing was looked up."""


@dataclass(frozen=True, slots=True)
class LookUpFailed:
    """A look-up got no reliable response. That never permits a send."""

    response: Response


@dataclass(frozen=True, slots=True)
class PastDeadline:
    """The time to give up has passed."""


@dataclass(frozen=True, slots=True)
class DeletedFound:
    """Somebody deleted at the destination what was delivered there."""

    response: Response


@dataclass(frozen=True, slots=True)
class ForeignFound:
    """Somebody changed at the destination what was delivered there."""

    response: Response


@dataclass(frozen=True, slots=True)
class AwaitsReference:
    """What it refers to is on its way to the destination too, and goes first."""


@dataclass(frozen=True, slots=True)
class Unprepared:
    """What must be there before the record could not be seen or made. Nothing was sent of it."""

    response: Response


@dataclass(frozen=True, slots=True)
class Sent:
    """A write was tried, and this is the response.

    `overwrote` is whether it went over somebody else's content. `conditional` is whether it asked
    for a version: then a late commit cannot go over a newer one. `together` is how many records
    went with the same request.
    """

    response: Response
    overwrote: bool = False
    conditional: bool = False
    together: int = 1


@dataclass(frozen=True, slots=True)
class Stopped:
    """The worker stops, or is not heard of any more, and the upload is not sent yet."""


@dataclass(frozen=True, slots=True)
class NoToken:
    """There is no access token for its user now."""

    error: NeedsAuthorization | TokenUnavailable


@dataclass(frozen=True, slots=True)
class Failed:
    """An error of our own. Only its type is kept: its text may quote the record.

    `writing` is whether a create or an update had begun and its response is not known.
    """

    error: str
    writing: bool = False


LookedUp = Found | NewerFound | NotFound | SearchEmpty | LookUpFailed
"""What all look-ups of one attempt say together."""

LastStep = (
    Cancelled
    | Collides
    | NoDestination
    | CannotOpen
    | Invalid
    | Unvalidated
    | Found
    | NewerFound
    | SearchEmpty
    | ClockStepped
    | LookUpFailed
    | PastDeadline
    | DeletedFound
    | ForeignFound
    | AwaitsReference
    | Unprepared
    | Sent
    | Stopped
    | NoToken
    | Failed
)
"""What ends an attempt."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt came to: its last step, and what the steps before it learnt.

    `issues` are the findings of validation, if this attempt validated. `in_doubt` is whether the
    upload was sent before with an unknown outcome and was not found: it may be stored later, so
    sending it again may duplicate it. `can_tell` is whether a look-up could tell that it was not
    there. `sent` is the body as the destination gets it, if that is another one than the upload's.
    """

    last: LastStep
    issues: dict[str, Any] | None = None
    in_doubt: bool = False
    can_tell: bool = True
    sent: bytes | None = field(default=None, repr=False)
