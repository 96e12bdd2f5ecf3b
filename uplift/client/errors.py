"""What can go wrong with a call.

CallError
├── NoAnswer              nothing answers, or the connection breaks
├── NotUplift             something else answers
├── NotFinal              the time is up, and the upload is not final
└── ProblemAnswer         the API answers with a problem (RFC 9457)
    ├── InvalidRequest    400, 413, 415 and others: change the request
    ├── NotAuthenticated  401: the key or device token is not valid
    ├── NotAllowed        403: it may not do this
    ├── NotFound          404
    ├── Conflict          409
    ├── KeyReused         422: the Idempotency-Key belongs to another request
    └── TryLater          408, 429, 5xx: the client repeated the call, without success

No message quotes a record or a key.
"""

from collections.abc import Sequence

from .models import FieldError, Upload


class CallError(Exception):
    """A call failed."""


class NoAnswer(CallError):
    """Nothing answers at the address of the API, or the connection breaks."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"No answer of the API: {reason}.")
        self.reason = reason


class NotUplift(CallError):
    """Something answers at that address that is not Uplift's API."""


class NotFinal(CallError):
    """The time is up, and the upload does not have its final status."""

    def __init__(self, upload: Upload) -> None:
        super().__init__(f"The upload {upload.id} is {upload.status}, which is not final.")
        self.upload = upload


class ProblemAnswer(CallError):
    """The API answers with a problem.

    Attributes:
        status: the HTTP status.
        code: the problem's own code; None if the API gives none.
        title: the kind of problem.
        detail: what was wrong, and what to do.
        errors: the wrong fields of the request.
        request_id: the logs of the API name it.
        retry_after: in how many seconds the API asks to try again.
    """

    def __init__(
        self,
        status: int,
        *,
        code: str | None = None,
        title: str = "",
        detail: str = "",
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        fields = ", ".join(f"{each.where}: {each.what}" for each in errors)
        words = " ".join(each for each in (detail or title, fields) if each)
        named = f" (request {request_id})" if request_id else ""
        super().__init__(f"{status}: {words}{named}")
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.request_id = request_id
        self.retry_after = retry_after


class InvalidRequest(ProblemAnswer):
    """The request is at fault. It fails the same way when repeated."""


class NotAuthenticated(ProblemAnswer):
    """The API key or device token is not valid."""


class NotAllowed(ProblemAnswer):
    """This API key or device token may not do this."""


class NotFound(ProblemAnswer):
    """There is no such thing, or the caller may not see it."""


class Conflict(ProblemAnswer):
    """The thing is in a state in which this cannot be done."""


class KeyReused(ProblemAnswer):
    """The Idempotency-Key was used for another request."""


class TryLater(ProblemAnswer):
    """The API cannot do it now."""


_KINDS: dict[int, type[ProblemAnswer]] = {
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    408: TryLater,
    409: Conflict,
    422: KeyReused,
    429: TryLater,
}


def kind_of(status: int) -> type[ProblemAnswer]:
    """The error for a problem with this status."""
    return _KINDS.get(status, TryLater if status >= 500 else InvalidRequest)
