"""The faults that can be asked for, as the control API takes them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

Seconds = Annotated[float, Field(ge=0, le=3600)]


class Match(BaseModel):
    """Which requests a rule is for. Nothing set: every request to any part of 1upHealth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api: Literal["fhir", "token", "user-management"] | None = None
    method: str | None = None
    version: str | None = None
    """`dstu2`, `stu3` or `r4`."""
    type: str | None = None
    """The resource type in the path."""
    id: str | None = None
    """The resource id, in the path or the body."""
    user: str | None = None
    """`oneup_user_id` or `app_user_id`."""
    path: str | None = None
    """A glob over the path: `*/Observation`."""
    contains: str | None = None
    """Text that the body holds: `grant_type=refresh_token`."""

    @field_validator("method")
    @classmethod
    def _upper(cls, method: str | None) -> str | None:
        return method.upper() if method else method

    @field_validator("version")
    @classmethod
    def _lower(cls, version: str | None) -> str | None:
        return version.lower() if version else version


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    match: Match = Match()
    skip: int = Field(default=0, ge=0)
    """Let this many matching requests pass first."""
    count: int | None = Field(default=None, ge=1)
    """How often it happens at most."""
    probability: float = Field(default=1.0, ge=0, le=1)
    seed: int = 0
    """Seeds the rule's own dice, so that a run can be repeated."""


class _Reply(_Rule):
    """A rule that decides the response. The first one to fire is the only one."""

    commit: bool = False
    """Do what was asked before sending this response."""
    commit_after: Seconds | None = None
    """Do what was asked this many seconds later, even if the client has gone."""


class TooManyRequests(_Reply):
    """429."""

    kind: Literal["too_many_requests"]
    retry_after: float | str | None = None
    """Seconds from now; text is sent as it is."""
    retry_after_form: Literal["seconds", "date"] = "seconds"


class RateLimit(_Reply):
    """429 for what exceeds a rate."""

    kind: Literal["rate_limit"]
    requests: int = Field(ge=0)
    per_seconds: float = Field(default=1.0, gt=0)
    retry_after: float | str | None = None
    retry_after_form: Literal["seconds", "date"] = "seconds"


class Status(_Reply):
    """Any status, with the likeliest body unless one is given."""

    kind: Literal["status"]
    status: int = Field(ge=200, le=599)
    body: Any = None
    """Text is sent as it is, everything else as JSON."""
    content_type: str | None = None
    headers: dict[str, str] = {}


class Html(_Reply):
    """200 with a login page."""

    kind: Literal["html"]


class ErrorBody(_Reply):
    """200 with `{"error": …}`."""

    kind: Literal["error_body"]
    error: str = "server_error"


class CutConnection(_Reply):
    """The connection closes without a response."""

    kind: Literal["cut"]


class ResetConnection(_Reply):
    """The connection is reset (RST) without a response."""

    kind: Literal["reset"]


class HalfOfAnswer(_Reply):
    """Half of the body that the head promises, then the connection closes."""

    kind: Literal["half_answer"]
    commit: bool = True


class Stalled(_Reply):
    """No response until the client gives up or `seconds` are over; then the connection closes."""

    kind: Literal["stall"]
    seconds: Seconds = 300.0


class LockConflict(_Reply):
    """409 as a server answers one of two that write the same resource at once."""

    kind: Literal["lock_conflict"]


class WrongEntries(_Reply):
    """The response to a Bundle, with its entries in another order, or without the last one."""

    kind: Literal["entries"]
    commit: bool = True
    order: Literal["shuffled", "missing"]


class EmptyAnswer(_Reply):
    """The right status and headers, and no body, as if `return=minimal` was asked for."""

    kind: Literal["empty_answer"]
    commit: bool = True


class Slow(_Rule):
    """The right response, late."""

    kind: Literal["slow"]
    seconds: Seconds
    commit_first: bool = False
    """Wait between commit and response, instead of before the commit."""


class IndexLag(_Rule):
    """What is written meanwhile appears in searches only after `seconds`."""

    kind: Literal["index_lag"]
    seconds: Seconds


class ExpireTokens(BaseModel):
    """Every access token alive now, or one user's, ends at once. Later ones are not touched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["expire_tokens"]
    user: str | None = None


class RefuseRefresh(_Rule):
    """Refresh tokens get `invalid_grant`; auth-code still works."""

    kind: Literal["refuse_refresh"]


class EndConsent(_Rule):
    """Refresh, codes, auth-code and access tokens are all refused, until a new grant."""

    kind: Literal["end_consent"]


Reply = (
    TooManyRequests
    | RateLimit
    | Status
    | Html
    | ErrorBody
    | CutConnection
    | ResetConnection
    | HalfOfAnswer
    | Stalled
    | LockConflict
    | WrongEntries
    | EmptyAnswer
)
LastingRule = Reply | Slow | IndexLag | RefuseRefresh | EndConsent
Rule = Annotated[LastingRule | ExpireTokens, Field(discriminator="kind")]

RULES: TypeAdapter[list[Rule]] = TypeAdapter(list[Rule])
"""Reads what is put to `/_sandbox/faults`."""
