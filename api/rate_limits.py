"""How many records one caller may send, as HTTP expresses it.

Sources: RFC 6585, 4 (429); draft-ietf-httpapi-ratelimit-headers-10 (RateLimit, RateLimit-Policy).
"""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from uplift.api.callers import Caller
from uplift.api.problems import Problem
from uplift.intake.accept_batch import Entry
from uplift.intake.rate_limit import Policy, TokenBuckets
from uplift.problem_types import ProblemType
from uplift.settings import Settings

_NAME = '"records"'

RATE_LIMIT_HEADERS: dict[str, Any] = {
    "RateLimit-Policy": {
        "schema": {"type": "string", "examples": ['"records";q=10000;w=60']},
        "description": "The limit of this credential: `q` records at once, and `q` more in every"
        " `w` seconds.",
    },
    "RateLimit": {
        "schema": {"type": "string", "examples": ['"records";r=9999;t=1']},
        "description": "What is left of the limit: `r` records now, and more in `t` seconds.",
    },
}
"""The OpenAPI entries of `RateLimits.headers`."""


class RateLimits:
    """The limits of this process: one for API keys, one for device tokens. Each caller counts
    alone."""

    def __init__(self, settings: Settings) -> None:
        seconds = settings.rate_limit_seconds
        self._key = Policy(settings.rate_limit_key_records, seconds)
        self._device = Policy(settings.rate_limit_device_records, seconds)
        self._buckets = TokenBuckets()

    def acquire(self, caller: Caller) -> None:
        """Count one record of the caller. Raises a Problem (429) if none is left."""
        policy = self._policy(caller)
        if not self._buckets.acquire(caller.credential.id, policy, 1, now=time.monotonic()):
            headers = self.headers(caller)
            credential = "device token" if caller.is_device else "key"
            raise Problem(
                ProblemType.RATE_LIMITED,
                f"Rate limit reached for this {credential}. Nothing was accepted. Send the request"
                " again after the seconds in Retry-After.",
                headers={"Retry-After": headers["RateLimit"].rpartition("=")[2], **headers},
            )

    async def charge(
        self, caller: Caller, entries: AsyncIterator[Entry]
    ) -> AsyncGenerator[Entry, None]:
        """Pass on the entries of a batch and count each of them, below zero if necessary."""
        policy = self._policy(caller)
        async for entry in entries:
            self._buckets.charge(caller.credential.id, policy, 1, now=time.monotonic())
            yield entry

    def charge_blank(self, caller: Caller, lines: int) -> None:
        """Count blank lines of a batch as records, below zero if necessary."""
        policy = self._policy(caller)
        self._buckets.charge(caller.credential.id, policy, lines, now=time.monotonic())

    def headers(self, caller: Caller) -> dict[str, str]:
        """RateLimit and RateLimit-Policy, for an answer of any status."""
        policy = self._policy(caller)
        standing = self._buckets.standing(caller.credential.id, policy, now=time.monotonic())
        return {
            "RateLimit-Policy": f"{_NAME};q={policy.records};w={math.ceil(policy.seconds)}",
            "RateLimit": f"{_NAME};r={standing.left};t={math.ceil(standing.seconds)}",
        }

    def _policy(self, caller: Caller) -> Policy:
        return self._device if caller.is_device else self._key
