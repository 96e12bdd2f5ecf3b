"""The errors that Uplift raises on purpose.

UpliftError
├── ConfigurationError          a setting is missing or wrong
│   └── UnusableKey             a file has no key that can sign
├── SealError                   a sealed value does not open with the keys of this process
├── KeyNeeded                   a master key may not be retired: something may need it
├── RequestError                a caller's request cannot be done; it says which problem this is
│   ├── NotFound                there is no such thing, or the caller may not see it
│   ├── Conflict                the state of the thing does not allow the request
│   ├── KeyReused               an idempotency key came with another request before
│   ├── BacklogFull             too many uploads wait already: try later
│   │   └── UserBacklogFull     too many of that user's do
│   ├── UnreadableUpload        the body cannot be stored: it is not a resource
│   ├── VersionNotTaken         the user's destination does not take the record's FHIR version
│   ├── InvalidRead             the request is not a read that Uplift or 1upHealth knows
│   ├── UnusableResponse        the response to a read cannot be passed on
│   ├── UpstreamTimedOut        1upHealth did not respond to a read in time
│   └── UpstreamUnavailable     1upHealth did not do what the request needs: try later
├── UnreadableDocument          the body cannot be validated: it is not a JSON object
├── TooComplex                  the body has more values than Uplift validates
├── DeadlinePassed              an attempt had no time left before it sent anything
├── ResponseTooLarge            a response has more bytes than Uplift reads
├── HeartbeatMissing            the ledger has not heard of this process lately: it sends nothing
├── Stopping                    the worker stops, and nothing of the upload is sent yet
├── WriteFailed                 an error of our own while a resource was sent: it may have arrived
├── TokenError                  1upHealth gave no tokens
├── QuotaSpent                  no user-management call may be made now
├── NeedsAuthorization          the grant is dead: only the person can give a new one
└── TokenUnavailable            there is no usable token now, but the grant may be good
    ├── LoginFailed             the deployment cannot log in: somebody must change a setting
    └── TokenPending            another process refreshes the token, or no refresh is allowed now
        └── TokenLimitReached   1upHealth allows no refresh until a known time

The token errors belong together. `TokenEndpoint` raises TokenError; QuotaSpent becomes one inside
it. `TokenAccess` turns TokenError into NeedsAuthorization or TokenUnavailable.

Messages never contain health data, tokens or keys: they reach logs and clients.
"""

from enum import StrEnum

from uplift.problem_types import ProblemType


class UpliftError(Exception):
    """Any error that Uplift raises on purpose."""


class ConfigurationError(UpliftError):
    """A setting is missing or wrong. Somebody must change it before a start makes sense."""


class UnusableKey(ConfigurationError):
    """A file has no key that can sign. `code` says in one word what is wrong with it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SealError(UpliftError):
    """A sealed value does not open: wrong key, wrong row, or altered."""


class KeyNeeded(UpliftError):
    """The key may not be retired. The message says why, a sentence each."""


class RequestError(UpliftError):
    """A caller's request cannot be done. `problem` is the kind of problem that answers it.

    `retry_after` is in seconds; None if no time is known.
    """

    def __init__(
        self, problem: ProblemType, message: str, *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.problem = problem
        self.retry_after = retry_after


class NotFound(RequestError):
    """There is no such thing, or the caller may not see it."""


class Conflict(RequestError):
    """The state of the thing does not allow the request."""


class KeyReused(RequestError):
    """An Idempotency-Key came with a request that differs from its first one."""


class BacklogFull(RequestError):
    """Uplift accepts no more until some of the waiting uploads are delivered."""


class UserBacklogFull(BacklogFull):
    """Uplift accepts no more of this user until some of what waits of theirs is delivered."""


class UnreadableUpload(RequestError):
    """The body is nothing that Uplift can store: not JSON, not an object, or no resourceType."""


class VersionNotTaken(RequestError):
    """The destination of the user does not take the FHIR version of the record."""


class InvalidRead(RequestError):
    """The request is not a read by FHIR's rules, or the destination refuses it."""


class UnusableResponse(RequestError):
    """1upHealth failed at a read, or sent something that cannot be passed on."""


class UpstreamTimedOut(RequestError):
    """1upHealth did not respond to a read in time."""


class UpstreamUnavailable(RequestError):
    """1upHealth did not do what the request needs."""


class UnreadableDocument(UpliftError):
    """The body is not a JSON object that can be validated. The message never quotes it."""


class TooComplex(UpliftError):
    """The body has more values than Uplift validates."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The resource has more than {limit} values (UPLIFT_MAX_RESOURCE_VALUES), so it is not"
            " validated. Split it, or raise the limit and redrive the upload."
        )


class DeadlinePassed(UpliftError):
    """The attempt's time was over before the first byte of the body was sent."""


class ResponseTooLarge(UpliftError):
    """The response has more bytes than the caller wants to read."""


class HeartbeatMissing(UpliftError):
    """The ledger has not heard of this process lately, so its uploads may be another one's now.
    Nothing of this one is sent."""


class Stopping(UpliftError):
    """The worker stops, and the create or update has not begun."""


class WriteFailed(UpliftError):
    """An error of our own while a create or an update was under way: it may have arrived."""

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.error = type(error).__name__


class Trouble(StrEnum):
    """Why 1upHealth gave no tokens."""

    REFUSED = "refused"  # it does not accept this code, refresh token or user: do not try again
    UNAVAILABLE = "unavailable"  # there was no useful response: try later
    BUSY = "busy"  # the limit on calls is reached


class TokenError(UpliftError):
    """1upHealth gave no tokens.

    `code` says why in one word. The response's text is not kept: it may quote what was sent.
    `retry_after` is in seconds; None if 1upHealth named no time.
    """

    def __init__(self, trouble: Trouble, code: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"1upHealth gave no tokens: {code}")
        self.trouble = trouble
        self.code = code
        self.retry_after = retry_after


class QuotaSpent(UpliftError):
    """No user-management call may be made for `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("The quota of user-management calls at 1upHealth is spent.")
        self.retry_after = retry_after


class NeedsAuthorization(UpliftError):
    """The user's grant is dead: only the person can give a new one."""


class TokenUnavailable(UpliftError):
    """There is no usable token now, but the grant may be good.

    `retry_after` is in seconds; None if nobody knows.
    """

    def __init__(self, code: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"No token from 1upHealth: {code}")
        self.code = code
        self.retry_after = retry_after


class LoginFailed(TokenUnavailable):
    """The deployment cannot log in at a destination: this says nothing about any person.

    `docs/errors.md` lists the codes; `uplift doctor` says what to do about each.
    """


class TokenPending(TokenUnavailable):
    """Uplift asked 1upHealth for nothing: another process asks already, or nobody may ask now.

    Try again after `retry_after` seconds, at a random time in the `spread` seconds that follow.
    """

    retry_after: float

    def __init__(self, code: str, *, retry_after: float, spread: float = 1.0) -> None:
        super().__init__(code, retry_after=retry_after)
        self.spread = spread


class TokenLimitReached(TokenPending):
    """1upHealth allows no such call before `retry_after` seconds have passed."""
