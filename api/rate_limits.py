"""How much one caller may send, as HTTP expresses it: records, and of device tokens bytes too.

Sources: RFC 6585, 4 (429); draft-ietf-httpapi-ratelimit-headers-10 (RateLimit, RateLimit-Policy).
"""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from uplift.api.callers import Caller
from uplift.api.problems import Problem
from uplift.intake.accept_batch import Entry
from uplift.intake.rate_limit import Policy, Standing, TokenBuckets
from uplift.problem_types import ProblemType
from uplift.settings import Settings

RATE_LIMIT_HEADERS: dict[str, Any] = {
    "RateLimit-Policy": {
        "schema": {"type": "string", "examples": ['"records";q=10000;w=60']},
        "description": "The limits of this credential: `q` records at once, and `q` more in every"
        " `w` seconds. A device token has a second one, of `bytes`.",
    },
    "RateLimit": {
        "schema": {"type": "string", "examples": ['"records";r=9999;t=1']},
        "description": "What is left of each limit: `r` now, and more in `t` seconds.",
    },
}
"""The OpenAPI entries of `RateLimits.headers`."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit of a kind of credential, by the name that its headers have."""

    name: str
    setting: str
    policy: Policy
    unit: str = ""
    buckets: TokenBuckets = field(default_factory=TokenBuckets)

    def standing(self, caller: Caller) -> Standing:
        return self.buckets.standing(caller.credential.id, self.policy, now=time.monotonic())

    def acquire(self, caller: Caller, amount: int) -> bool:
        now = time.monotonic()
        return self.buckets.acquire(caller.credential.id, self.policy, amount, now=now)

    def charge(self, caller: Caller, amount: int) -> None:
        self.buckets.charge(caller.credential.id, self.policy, amount, now=time.monotonic())


class RateLimits:
    """The limits of this process, for API keys and for device tokens. Each caller counts alone."""

    def __init__(self, settings: Settings) -> None:
        seconds = settings.rate_limit_seconds
        self._keys = _Limit(
            "records",
            "UPLIFT_RATE_LIMIT_KEY_RECORDS",
            Policy(settings.rate_limit_key_records, seconds),
        )
        self._devices = _Limit(
            "records",
            "UPLIFT_RATE_LIMIT_DEVICE_RECORDS",
            Policy(settings.rate_limit_device_records, seconds),
        )
        self._device_bytes = _Limit(
            "bytes",
            "UPLIFT_RATE_LIMIT_DEVICE_BYTES",
            Policy(settings.rate_limit_device_bytes, seconds),
            unit=';qu="content-bytes"',
        )

    def acquire(self, caller: Caller) -> None:
        """Count one record of the caller. Raises a Problem (429) if none is left, or no byte."""
        # What its bytes are is known when they have come.
        if caller.is_device and not self._device_bytes.acquire(caller, 0):
            raise self._reached(caller, self._device_bytes)
        records = self._records(caller)
        if not records.acquire(caller, 1):
            raise self._reached(caller, records)

    async def charge(
        self, caller: Caller, entries: AsyncIterator[Sequence[Entry]]
    ) -> AsyncGenerator[Sequence[Entry], None]:
        """Pass on the entries of a batch and count each of them, below zero if necessary."""
        records = self._records(caller)
        async for part in entries:
            records.charge(caller, len(part))
            yield part

    def charge_blank(self, caller: Caller, lines: int) -> None:
        """Count blank lines of a batch as records, below zero if necessary."""
        self._records(caller).charge(caller, lines)

    def charge_bytes(self, caller: Caller, count: int) -> None:
        """Count bytes of an unpacked body, below zero if necessary."""
        if caller.is_device:
            self._device_bytes.charge(caller, count)

    async def charge_chunks(
        self, caller: Caller, chunks: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        """Pass on the chunks of a body and count their bytes."""
        async with aclosing(chunks):
            async for chunk in chunks:
                self.charge_bytes(caller, len(chunk))
                yield chunk

    def headers(self, caller: Caller) -> dict[str, str]:
        """RateLimit and RateLimit-Policy, for an answer of any status."""
        policies, standings = [], []
        for limit in self._of(caller):
            policy, standing = limit.policy, limit.standing(caller)
            window = math.ceil(policy.seconds)
            policies.append(f'"{limit.name}";q={policy.amount};w={window}{limit.unit}')
            left, seconds = standing.left, math.ceil(standing.seconds)
            standings.append(f'"{limit.name}";r={left};t={seconds}')
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(standings)}

    def _reached(self, caller: Caller, limit: _Limit) -> Problem:
        credential = "device token" if caller.is_device else "key"
        wait = math.ceil(limit.standing(caller).seconds)
        return Problem(
            ProblemType.RATE_LIMITED,
            f"Rate limit of {limit.name} reached for this {credential} ({limit.setting}). Nothing"
            " was accepted. Send the request again after the seconds in Retry-After.",
            headers={"Retry-After": str(wait), **self.headers(caller)},
        )

    def _records(self, caller: Caller) -> _Limit:
        return self._devices if caller.is_device else self._keys

    def _of(self, caller: Caller) -> Iterator[_Limit]:
        yield self._records(caller)
        if caller.is_device:
            yield self._device_bytes
