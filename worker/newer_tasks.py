"""Tasks that a newer version of Uplift sent: left to its workers, and told once.

While an upgrade goes on, a worker of the version before may get one. It does not know what to do
with it, and gives it back after a while, for the others. What nobody takes is dropped in the end:
the sweep dispatches what is due.
"""

import re
import time
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)

HOLD_SECONDS = 5.0
"""So long a task is kept from this worker, and then given back."""

KEEP_SECONDS = 3600.0
"""So long a task may wait for a newer worker."""

# More are not kept: somebody fills Redis with them.
_MAX_TASKS = 500
_MAX_NAMES = 20
# Who reaches Redis chooses the names.
_NAME = re.compile(r"[A-Za-z0-9_.]{1,100}")


class NewerTasks:
    """Which tasks this worker gave back, and since when. `now` is a clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: set[str] = set()
        self._since: dict[str, float] = {}

    def is_kept(self, name: str, task_id: str) -> bool:
        """Whether the task is to be given back; else it is to be dropped."""
        if name not in self._told and len(self._told) < _MAX_NAMES:
            self._told.add(name)
            told = name if _NAME.fullmatch(name) else "of no possible name"
            _log.warning("task_left_to_newer_workers", task=told)
        now = self._now()
        self._since = {
            each: since for each, since in self._since.items() if now - since < 2 * KEEP_SECONDS
        }
        if len(self._since) >= _MAX_TASKS and task_id not in self._since:
            return False
        return now - self._since.setdefault(task_id, now) < KEEP_SECONDS
