"""Is this worker process at work, or does it only exist?

Its three parts can hang each for itself: the loop that the relay lives on, Celery's consumer, and
beat, which a worker of the control queue has beside it. While Redis is away nothing of this is the
worker's fault, and a restart would mend nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

CONSUMER_SECONDS = 60.0
"""Celery's consumer shows itself every 2 s (`heartbeat_sent`) while it has its broker."""

SWEEPS_MISSED = 30
"""A sweep that has not ended for so many of its pauses, and at least a minute, is missing."""


@dataclass(slots=True)
class Signs:
    """When the parts last showed themselves, on time.monotonic. To begin with: now."""

    consumer: float = field(default_factory=time.monotonic)
    sweep: float = field(default_factory=time.monotonic)

    def consumer_lives(self, **_: object) -> None:
        """Celery's consumer went round."""
        self.consumer = time.monotonic()

    def swept(self) -> None:
        """A sweep ended, well or not."""
        self.sweep = time.monotonic()


@dataclass(frozen=True, slots=True)
class Health:
    """What keeps a worker from its work.

    `loop_responds` and `redis_responds` ask, and wait for some seconds at most. `sweep_seconds` is
    the pause between two sweeps, or None where the worker has no beat.
    """

    signs: Signs
    loop_responds: Callable[[], bool]
    redis_responds: Callable[[], bool]
    sweep_seconds: float | None

    def check(self) -> str | None:
        """In a few words; None if nothing does."""
        if not self.loop_responds():
            return "the event loop does not answer"
        now = time.monotonic()
        missing = None
        if now - self.signs.consumer > CONSUMER_SECONDS:
            missing = "Celery takes no messages, although Redis answers"
        elif self.sweep_seconds is not None and now - self.signs.sweep > max(
            60.0, SWEEPS_MISSED * self.sweep_seconds
        ):
            missing = "beat or its sweeps stand still, although Redis answers"
        return missing if missing and self.redis_responds() else None
