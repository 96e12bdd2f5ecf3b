"""What the API answers with. Fields that a later version of the API adds are ignored."""

from datetime import datetime
from typing import Any

import msgspec


def is_settled(status: str) -> bool:
    """Whether an upload with this status stays like this until somebody acts."""
    return status not in ("queued", "sending")


class Model(msgspec.Struct, frozen=True, rename="camel"):
    """A JSON object of the API."""


class Receipt(Model, frozen=True):
    """What the destination calls the resource that it stored."""

    id: str | None = None
    version: str | None = None
    stored_at: datetime | None = None
    sha256: str | None = None
    sent_sha256: str | None = None


class Issue(Model, frozen=True):
    """One finding of the validation. It never quotes the record."""

    severity: str = ""
    code: str = ""
    expression: list[str] = []
    diagnostics: str = ""


class Issues(Model, frozen=True):
    """What the validation found: how many issues, and the first of them."""

    total: int = 0
    issue: list[Issue] = []


class Upload(Model, frozen=True):
    """An upload: its status, and what happened to it."""

    id: str
    status: str
    """`queued`, `sending`, `parked`, `delivered`, `rejected`, `refused`, `expired`, `cancelled` or
    `superseded`."""
    final: bool
    """Whether the status does not change any more by itself."""
    user: str
    fhir_version: str
    resource_type: str
    created_at: datetime
    updated_at: datetime
    status_url: str
    destination: str = ""
    reason: str | None = None
    batch: str | None = None
    attempts: int = 0
    duplicate: bool = False
    """Whether the same content was accepted before; nothing new is sent."""
    possible_duplicate: bool = False
    maybe_overwritten: bool = False
    maybe_stored: bool = False
    cancel_requested: bool = False
    next_attempt_at: datetime | None = None
    delivered_at: datetime | None = None
    receipt: Receipt | None = None
    issues: Issues = Issues()
    last_response: str | None = None

    @property
    def settled(self) -> bool:
        """Whether it stays like this until somebody acts. `parked` is settled, but not final."""
        return is_settled(self.status)


class Attempt(Model, frozen=True):
    """One attempt to deliver an upload."""

    opened_at: datetime
    closed_at: datetime | None = None
    outcome: str | None = None
    status_code: int | None = None
    duration_ms: int | None = None


class LineProblem(Model, frozen=True):
    """Why a line of a batch is not an upload."""

    status: int
    code: str | None = None
    type: str = ""
    title: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.detail or self.title}"


class BatchLine(Model, frozen=True):
    """The result of a line of a batch: an upload or a problem."""

    line: int
    id: str | None = None
    status: str | None = None
    duplicate: bool = False
    problem: LineProblem | None = None


class Batch(Model, frozen=True):
    """A batch in numbers."""

    id: str
    user: str
    total: int
    accepted: int
    duplicates: int
    problems: int
    closed: bool
    broken: bool
    created_at: datetime
    updated_at: datetime
    status_url: str
    lines_url: str
    closed_at: datetime | None = None


class BatchStatus(Batch, frozen=True, kw_only=True):
    """A batch, and the progress of its uploads."""

    by_status: dict[str, int]
    progress: float
    settled: bool


class TryNowReport(Model, frozen=True):
    """The number of uploads that are due earlier than before."""

    tried: int


class RedriveReport(Model, frozen=True):
    """The numbers of a redrive of many."""

    queued: int
    superseded: int
    left: dict[str, int] = {}
    after: str | None = None
    """Redrive with this again to go on; None if nothing is left."""


class Pause(Model, frozen=True):
    """A pause of one user, or of everybody (None)."""

    since: datetime
    user: str | None = None


class UpstreamErasing(Model, frozen=True):
    """A user who is being erased at their destinations too: since when, and what is not gone."""

    since: datetime
    left_upstream: int
    problem: str | None = None


class User(Model, frozen=True):
    """A user, and the state of the grant at 1upHealth."""

    app_user_id: str
    grant: str
    paused: bool
    created_at: datetime
    sync_token: str
    oneup_user_id: str | None = None
    grant_origin: str | None = None
    destination: str = ""
    erasing_since: datetime | None = None
    erasing: UpstreamErasing | None = None
    patients: dict[str, str] | None = None


class UserSummary(Model, frozen=True):
    """A user's uploads in numbers."""

    app_user_id: str
    grant: str
    sync_token: str
    complete: bool
    total: int
    by_status: dict[str, int]
    by_type: dict[str, dict[str, int]]


class ListedDeviceToken(Model, frozen=True):
    """A device token without its secret."""

    id: str
    name: str
    created_at: datetime
    expires_at: datetime | None = None


class DeviceTokenList(Model, frozen=True):
    """The device tokens of a user."""

    device_tokens: list[ListedDeviceToken]


class DeviceToken(Model, frozen=True):
    """A device token. It is shown only once."""

    id: str
    token: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"DeviceToken(id={self.id!r}, token='…', expires_at={self.expires_at!r})"


class Erasure(Model, frozen=True):
    """How far an erasure is: `erased`, or `erasing` while workers send so many uploads.

    `unreadable_by`: when nobody can read what backups still have of the user; None if nobody knows.
    `upstream` is `keep` or `delete`, and then `left_upstream` is how much is not gone at
    destinations. `problem` is why, and `history` is what these keep of it.
    """

    status: str
    sending: int
    unreadable_by: datetime | None
    upstream: str = "keep"
    left_upstream: int = 0
    problem: str | None = None
    history: list[str] = []


class FieldError(Model, frozen=True):
    """A wrong field of a request."""

    where: str = ""
    what: str = ""


class Problem(Model, frozen=True):
    """RFC 9457."""

    title: str = ""
    detail: str = ""
    code: str | None = None
    errors: list[FieldError] = []


class ListPage(Model, frozen=True, kw_only=True):
    """One page of a list."""

    next: str | None = None
    """The address of the next page."""


class UploadPage(ListPage, frozen=True, kw_only=True):
    """One page of uploads."""

    uploads: list[Upload]


class BatchPage(ListPage, frozen=True, kw_only=True):
    """One page of batches."""

    batches: list[Batch]


class LinePage(ListPage, frozen=True, kw_only=True):
    """Lines of a batch: one page, or all of them in the answer to its submission."""

    lines: list[BatchLine]


class UserPage(ListPage, frozen=True, kw_only=True):
    """One page of users."""

    users: list[User]


class PauseList(Model, frozen=True):
    """All pauses."""

    pauses: list[Pause]


class AttemptList(Model, frozen=True):
    """The latest attempts."""

    attempts: list[Attempt]


class BundleLink(Model, frozen=True):
    """A link of a FHIR Bundle."""

    relation: str = ""
    url: str = ""


class BundleEntry(Model, frozen=True):
    """An entry of a FHIR Bundle."""

    resource: dict[str, Any] | None = None


class Bundle(Model, frozen=True):
    """A page of a search."""

    link: list[BundleLink] = []
    entry: list[BundleEntry] = []
