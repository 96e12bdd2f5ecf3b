"""How much a caller may bring, as HTTP says it.

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
from uplift.settings import Settings

_NAME = '"records"'

LIMIT_HEADERS: dict[str, Any] = {
    "RateLimit-Policy": {
        "schema": {"type": "string", "examples": ['"records";q=10000;w=60']},
        "description": "Records that this credential may bring at once, and in how many seconds"
        " as many again.",
    },
    "RateLimit": {
        "schema": {"type": "string", "examples": ['"records";r=9999;t=1']},
        "description": "How many of them are left, and in how many seconds there are more.",
    },
}
"""The OpenAPI entries of `Limits.headers`."""


class Limits:
    """The limits of one process: one for API keys, one for device tokens, each caller apart."""

    def __init__(self, settings: Settings) -> None:
        seconds = settings.rate_limit_seconds
        self._key = Policy(settings.rate_limit_key_records, seconds)
        self._device = Policy(settings.rate_limit_device_records, seconds)
        self._buckets = TokenBuckets()

    def acquire(self, caller: Caller) -> None:
        """Take one record off what the caller has left. Raises a Problem (429) if it is nothing."""
        taken = self._buckets.acquire(
            caller.credential.id, self._policy(caller), 1, now=time.monotonic()
        )
        if not taken:
            headers = self.headers(caller)
            raise Problem(
                429,
                "Too many requests",
                "This credential brings more than it may. Nothing was accepted; send again after"
                " Retry-After.",
                headers={"Retry-After": headers["RateLimit"].rpartition("=")[2], **headers},
            )

    async def count(
        self, caller: Caller, entries: AsyncIterator[Entry]
    ) -> AsyncGenerator[Entry, None]:
        """The entries of a batch, each taken off what the caller has left, into debt if need be."""
        policy = self._policy(caller)
        async for entry in entries:
            self._buckets.charge(caller.credential.id, policy, 1, now=time.monotonic())
            yield entry

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
