"""What a chaos run leaves behind, as its checks read it. Data only."""

from dataclasses import dataclass, field

from chaos.devices import Accepted
from chaos.options import Options


@dataclass(frozen=True, slots=True)
class Row:
    """An upload in the ledger. `marked`: it carries the mark `possible_duplicate`.
    `maybe_overwritten`: it says that an older version may have gone over it.

    `waited` is how many seconds it took from accepted to delivered, if it is delivered. `restored`:
    it was there as the ledger went back in time, or it came soon after.
    """

    id: str
    user: str
    version: int
    state: str
    reason: str | None
    attempts: int
    maybe_sent: bool
    marked: bool
    waited: float | None = None
    maybe_overwritten: bool = False
    restored: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim of an upload. Times are Unix times."""

    upload_id: str
    opened_at: float
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of one resource at the simulated 1upHealth. `at` is Unix time.

    `copy` is `resource` or `version` if the same content was stored before.
    """

    user: str
    resource_id: str
    sha256: str
    at: float
    copy: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One request to its FHIR API. `at` is Unix time.

    `whole`: the body arrived, if the request has one. `answered`: its true answer was sent.
    `if_match`: it named the version that must be there.
    """

    number: int
    at: float
    method: str
    path: str
    query: str = ""
    sha256: str | None = None
    whole: bool = True
    answered: bool = True
    if_match: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it. `shown` is each upload's status by the API. Users have their backend's names.

    `patients` has the number of versions of each Patient that Uplift made.
    """

    options: Options
    accepted: list[Accepted] = field(default_factory=list)
    lost: list[Accepted] = field(default_factory=list)
    """What devices got a 202 for from a ledger that is there no more."""
    unexpected: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    lost_attempts: list[Attempt] = field(default_factory=list)
    """Those of ledgers that are there no more."""
    stored: list[Stored] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    patients: list[int] = field(default_factory=list)
    leaver: list[str] = field(default_factory=list)
    """What is wrong with the person who left, and what is left of them at the destination."""
    not_told: list[str] = field(default_factory=list)
    """Faults of which the doctor said nothing while they lasted, and what it still says at last."""

    @property
    def ever_accepted(self) -> list[Accepted]:
        """All for which a device got a 202."""
        return [*self.lost, *self.accepted]
