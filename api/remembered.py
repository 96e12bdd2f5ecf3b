"""The outcome of a check, remembered for a second: anybody may ask as often as they want."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from uplift.api.problems import Problem, problem_of

_Found = TypeVar("_Found")


class Remembered(Generic[_Found]):
    """Runs a check once a second at most. Who asks while it runs gets its outcome, too.

    If the check takes longer than `patience` seconds, the answer is `late`, until it ends. `now` is
    a clock in seconds.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[_Found]],
        *,
        seconds: float = 1.0,
        patience: float = 0.8,
        late: Problem,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check = check
        self._seconds = seconds
        self._patience = patience
        self._late = late
        self._now = now
        self._running: asyncio.Task[None] | None = None
        self._outcome: tuple[float, _Found | Problem] | None = None

    async def __call__(self) -> _Found:
        """What the check found. Raises a Problem if it failed, or did not end in time."""
        outcome: _Found | Problem
        if self._outcome is not None and self._outcome[0] + self._seconds > self._now():
            outcome = self._outcome[1]
        else:
            if self._running is None:
                self._running = asyncio.create_task(self._run(), context=Context())
            done, _ = await asyncio.wait([self._running], timeout=self._patience)
            outcome = self._outcome[1] if done and self._outcome is not None else self._late
        if isinstance(outcome, Problem):
            # A new one: a traceback grows each time that an error is raised.
            raise Problem(outcome.kind, outcome.detail, headers=outcome.headers)
        return outcome

    async def _run(self) -> None:
        found: _Found | Problem
        try:
            found = await self._check()
        except Exception as error:  # noqa: BLE001  it becomes a problem, as elsewhere
            found = problem_of(error, "GET")
        finally:
            self._running = None
        self._outcome = (self._now(), found)
