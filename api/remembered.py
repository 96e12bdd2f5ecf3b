"""The outcome of a check, remembered for a second: anybody may ask as often as they want."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from uplift.api.problems import Problem, problem_of

_Found = TypeVar("_Found")


class Remembered(Generic[_Found]):
    """Runs a check once a second at most. Who asks while it runs gets its outcome, too.

    `now` is a clock in seconds.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[_Found]],
        *,
        seconds: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check = check
        self._seconds = seconds
        self._now = now
        self._lock = asyncio.Lock()
        self._outcome: tuple[float, _Found | Problem] | None = None

    async def __call__(self) -> _Found:
        """What the check found. Raises a Problem if it failed."""
        asked = self._now()
        async with self._lock:
            if self._outcome is None or self._outcome[0] + self._seconds <= asked:
                found: _Found | Problem
                try:
                    found = await self._check()
                except Exception as error:  # noqa: BLE001  it becomes a problem, as elsewhere
                    found = problem_of(error, "GET")
                self._outcome = (self._now(), found)
            outcome = self._outcome[1]
        if isinstance(outcome, Problem):
            # A new one: a traceback grows each time that an error is raised.
            raise Problem(outcome.kind, outcome.detail, headers=outcome.headers)
        return outcome
