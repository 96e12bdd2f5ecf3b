"""The whole state of one sandbox, in memory; what must outlive it is in its journal too."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from uplift.sandbox.accounts import Accounts
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.faults import Faults
from uplift.sandbox.journal import Event, Journal
from uplift.sandbox.servers.assertions import Assertions
from uplift.sandbox.servers.profile import Profile
from uplift.sandbox.servers.searches import SearchCache
from uplift.sandbox.store import Store


@dataclass(slots=True)
class LogEntry:
    """One request, from its arrival on. Of headers and forms it keeps these, and no body."""

    number: int
    received_at: datetime
    api: str
    method: str
    path: str
    query: str = ""
    request_id: str | None = None
    version: str | None = None
    type: str | None = None
    id: str | None = None
    user: str | None = None
    grant_type: str | None = None
    if_match: str | None = None
    entries: list[dict[str, str | None]] = field(default_factory=list)
    """The digest and the precondition of each resource of a Bundle that is written."""
    size: int = 0
    sha256: str | None = None
    status: int | None = None
    """None before the response; None for ever if the connection was cut, reset or stalled."""
    fault: str | None = None
    seconds: float | None = None
    stored: str | None = None
    """`Type/id/_history/version` of what it committed, however late."""

    def as_json(self) -> dict[str, Any]:
        """For the control API."""
        entry = {name: getattr(self, name) for name in self.__slots__}
        return {**entry, "received_at": self.received_at.isoformat()}


class Sandbox:
    """The simulated server behind one app."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.faults = Faults(config.profile)
        self._journal: Journal | None = None
        self._begin()
        if config.state_file is not None:
            journal = Journal(config.state_file, config.state_key)
            for event in journal.read():
                self._repeat(event)
            self._journal = journal

    @property
    def profile(self) -> Profile:
        """The server that it is like, if it is not 1upHealth."""
        profile = self.config.profile
        assert profile is not None  # noqa: S101  only the routes of such a server ask
        return profile

    def reset(self) -> None:
        """Forget users, tokens, resources, rules, the request log, and what is under way."""
        self.faults.forget()
        if self._journal is not None:
            self._journal.clear()
        self._begin()

    def _begin(self) -> None:
        self.accounts = Accounts(self.config, partial(self._note, "accounts"))
        self.assertions = Assertions()
        self.store = Store(
            like_recorded=self.config.like == "oneup-recorded",
            opaque_versions=self.config.profile is not None and self.config.profile.opaque_versions,
            note=partial(self._note, "store"),
        )
        self.searches = SearchCache(self.config.search_cache_seconds)
        self.log: deque[LogEntry] = deque(maxlen=self.config.request_log)
        self.requests_seen = 0

    def _note(self, part: str, noted: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.append({part: noted})

    def _repeat(self, event: Event) -> None:
        if "store" in event:
            self.store.put_noted(event["store"])
        else:
            self.accounts.put_noted(event["accounts"])
