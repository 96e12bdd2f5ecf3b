"""Searches. Without `Cache-Control: no-cache`, what a search found is its result for 60 seconds."""

import time
from collections.abc import Callable
from typing import Any

from uplift.sandbox.search import Query, search
from uplift.sandbox.store import Shelf

CACHE_SECONDS = 60.0


class SearchCache:
    """The latest results of searches that allowed it, by their address."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    def search(self, shelf: Shelf, query: Query, url: str, *, fresh: bool) -> dict[str, Any]:
        """A page of a type's resources. `fresh` neither reads nor writes what is kept.

        Raises ValueError for a parameter that is not simulated.
        """
        now = self._now()
        key = f"{url}?{sorted(query)}"
        until, kept = self._kept.get(key, (0.0, {}))
        if not fresh and now < until:
            return kept
        asked = [(name, value) for name, value in query if name != "_summary"]
        page = search(shelf, asked, url, time.monotonic())
        if dict(query).get("_summary") == "count":
            page = {name: page[name] for name in ("resourceType", "type", "total")}
        if not fresh:
            self._kept[key] = now + self._seconds, page
        return page
