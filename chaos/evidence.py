"""What a storm leaves behind, as its checks read it. Data only."""

from dataclasses import dataclass, field

from chaos.devices import Told
from chaos.terms import Terms


@dataclass(frozen=True, slots=True)
class Row:
    """An upload in the ledger."""

    id: str
    user: str
    version: int
    state: str
    reason: str | None
    attempts: int
    maybe_sent: bool
    marked: bool  # possible_duplicate


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim of an upload. Times are Unix times."""

    upload_id: str
    opened_at: float
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of one resource at the simulated 1upHealth. `at` is Unix time."""

    user: str
    resource_id: str
    sha256: str
    at: float
    copy: str | None = None  # `resource` or `version`: this content was there before


@dataclass(frozen=True, slots=True)
class Request:
    """One request to its FHIR API. `whole`: its body came, if it has one. `at` is Unix time."""

    number: int
    at: float
    method: str
    path: str
    query: str = ""
    sha256: str | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it. `shown` is each upload's status by the API. Users have their backend's names."""

    terms: Terms
    told: list[Told] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
