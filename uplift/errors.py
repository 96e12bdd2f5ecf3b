"""What can go wrong inside the relay, for a person to act on.

UpliftError
├── ConfigurationError      the deployment must change something before a start makes sense
├── SealError               a sealed value cannot be opened with the keys at hand
├── NotFound                no such thing, or not the caller's to see
├── Conflict                the thing is in a state that forbids the request
├── KeyReused               an idempotency key stands for another request
├── BacklogFull             too much waits to be sent already; try later
├── UnreadableUpload        what came in is no resource that can be kept
├── InvalidRead             what was asked for is nothing that can be read back
├── UnusableAnswer          1upHealth's answer to a read cannot be passed on
├── UpstreamTimedOut        1upHealth did not answer a read in time
└── UpstreamUnavailable     1upHealth did not do what the request needs; try later

Messages never hold health data, tokens or keys: they reach logs and clients.
"""


class UpliftError(Exception):
    """Any error that Uplift raises on purpose."""


class ConfigurationError(UpliftError):
    """A setting is missing or wrong."""


class SealError(UpliftError):
    """A sealed value cannot be opened: wrong key, wrong row, or altered."""


class NotFound(UpliftError):
    """No such thing, or not the caller's to see."""


class Conflict(UpliftError):
    """The thing's state forbids what was asked."""


class KeyReused(UpliftError):
    """An Idempotency-Key came with another request than the one that it stands for."""


class BacklogFull(UpliftError):
    """Nothing more is accepted until some of what waits is sent."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnreadableUpload(UpliftError):
    """The body is not something Uplift can keep: not JSON, not an object, no resourceType."""


class InvalidRead(UpliftError):
    """What was asked for is nothing that can be read back, by FHIR's rules or by 1upHealth's."""


class UnusableAnswer(UpliftError):
    """1upHealth failed at a read, or its answer is nothing that can be passed on."""


class UpstreamTimedOut(UpliftError):
    """1upHealth did not answer a read in time."""


class UpstreamUnavailable(UpliftError):
    """1upHealth did not do what this request needs."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
