"""Claims uploads: as many as there are slots, permits of the rate limiter and bytes for."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.delivery.heartbeats import Heartbeats
from uplift.delivery.in_flight import InFlightLimit
from uplift.delivery.permits import wait_for_permits
from uplift.delivery.rate_limiter import RateLimiter
from uplift.delivery.sharing import Candidate, groups, limits_at_claim
from uplift.destinations.destination import Destination
from uplift.ledger import due, fair_queue, leases, set_aside
from uplift.ledger.database import Database
from uplift.ledger.due import Due
from uplift.ledger.leases import Claim, LeaseTerms
from uplift.ledger.set_aside import FhirType
from uplift.lifecycle import ALONE_AFTER_CRASHES
from uplift.settings import Settings

MAX_CLAIM = 100
"""So many uploads are claimed at once at most."""

# How long a message waits for a permit, in seconds: meanwhile it occupies a worker's thread.
_PATIENCE = 1.0
# How often a type of which only probes go out is looked at, in seconds.
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Claimed:
    """What is claimed, in groups that are attempted together; what must be attempted while nothing
    else is; and of how many it was found out."""

    groups: list[list[Claim]]
    suspects: list[UUID]
    found: int


@dataclass(slots=True)
class _Acquired:
    """Slots, permits and bytes of bodies, and the claims that use them."""

    slots: int
    permits: int = 0
    body_bytes: int = 0
    claims: list[Claim] = field(default_factory=list)


class Claimer:
    """Claims what is next in a queue for one destination.

    `stopping` is set when nothing more may be claimed.
    """

    def __init__(
        self,
        database: Database,
        destination: Destination,
        rate_limiter: RateLimiter,
        in_flight: InFlightLimit,
        heartbeats: Heartbeats,
        settings: Settings,
        stopping: asyncio.Event,
    ) -> None:
        self._database = database
        self._destination = destination.name
        self._together = destination.max_together
        self._to = destination
        self._rate_limiter = rate_limiter
        self._in_flight = in_flight
        self._heartbeats = heartbeats
        self._settings = settings
        self._stopping = stopping
        self._looked_at: dict[tuple[str, FhirType], float] = {}  # on time.monotonic

    async def count_ready(self, queue: str) -> int:
        """How many may be claimed, up to a limit: only so many slots and permits are acquired."""
        if not self._rate_limiter.is_scarce:
            async with self._database.reading() as connection:
                return self.noted(
                    await fair_queue.count_ready(
                        connection, queue, self._destination, limit=MAX_CLAIM
                    )
                )
        # What turns out not to be due would use up permits, and there are few.
        while True:
            probing = await self._rate_limiter.types.probing()
            async with self._database.transaction() as connection:
                front = await due.front(
                    connection,
                    queue,
                    self._destination,
                    limit=MAX_CLAIM,
                    probing=probing,
                    longest_wait=self._settings.longest_settling_seconds,
                )
            if front.due or not front.found:
                return self.noted(len(front.due))

    def noted(self, ready: int) -> int:
        """Note that so many are ready, which it returns."""
        if ready:
            self._in_flight.note_work(self._destination)
        return ready

    async def claim(self, queue: str, limit: int, *, elsewhere: Collection[UUID]) -> Claimed | None:
        """Claim up to so many, once there are free slots; None without a permit or an upload.

        What another caller attempts alone, `elsewhere`, is left to it.
        """
        leased: list[list[Claim]] = []
        async with self._acquire(limit, together=self._together) as acquired:
            acquired.permits = await self._permits(acquired.slots)
            if not acquired.permits:
                return None
            probing = await self._rate_limiter.types.probing()
            await self._heartbeats.ready()
            since = time.monotonic()
            async with self._database.transaction() as connection:
                front = await due.front(
                    connection,
                    queue,
                    self._destination,
                    limit=acquired.permits,
                    probing=probing,
                    stalled_seconds=self._rate_limiter.stalled_seconds,
                    longest_wait=self._settings.longest_settling_seconds,
                )
                suspects = [
                    id_ for id_, each in front.due.items() if each.crashes >= ALONE_AFTER_CRASHES
                ]
                others = {id_: each for id_, each in front.due.items() if id_ not in suspects}
                leased = await self._lease_fitting(connection, others, acquired, since)
            acquired.claims = [claim for group in leased for claim in group]
        alone = [id_ for id_ in suspects if id_ not in elsewhere]
        passed = front.found - len(front.due)
        if not (others or alone or passed):
            return None
        return Claimed(leased, alone, len(acquired.claims) + len(alone) + passed)

    async def claim_alone(self, upload_id: UUID) -> list[Claim] | None:
        """Claim this one, if it is due; None without a permit. Acquires no slot."""
        if self._stopping.is_set() or not await self._permits(1):
            return None
        claims: list[Claim] = []
        try:
            await self._heartbeats.ready()
            since = time.monotonic()
            async with self._database.transaction() as connection:
                claims = await leases.claim(
                    connection,
                    [upload_id],
                    since=since,
                    stalled_seconds=self._rate_limiter.stalled_seconds,
                    **self._terms(),
                )
        finally:
            self._rate_limiter.release(1 - len(claims))
        return claims

    async def claim_probes(self, queue: str) -> list[Claim]:
        """Claim an upload of each type of which a probe may be sent now, if one is set aside."""
        claims: list[Claim] = []
        for fhir_type, wait in (await self._rate_limiter.types.probing()).items():
            looked_at = self._looked_at.get((queue, fhir_type), 0.0)
            if wait or time.monotonic() < looked_at + _LOOK_SECONDS:
                continue
            self._looked_at[queue, fhir_type] = time.monotonic()
            claims += await self._claim_probe(queue, fhir_type)
        return claims

    async def _claim_probe(self, queue: str, fhir_type: FhirType) -> list[Claim]:
        async with self._database.reading() as connection:
            upload_id = await set_aside.first_set_aside(
                connection, queue, self._destination, fhir_type
            )
        if upload_id is None:
            return []
        async with self._acquire(1) as acquired:
            acquired.permits = await self._permits(1)
            if not acquired.permits or not await self._rate_limiter.types.acquire(fhir_type):
                return []
            await self._heartbeats.ready()
            since = time.monotonic()
            async with self._database.transaction() as connection:
                await set_aside.make_due(connection, upload_id)
                found = await due.due_among(
                    connection, [upload_id], stalled_seconds=self._rate_limiter.stalled_seconds
                )
                leased = await self._lease_fitting(connection, found, acquired, since)
            acquired.claims = [claim for group in leased for claim in group]
        return acquired.claims

    @asynccontextmanager
    async def _acquire(self, limit: int, *, together: int = 1) -> AsyncIterator[_Acquired]:
        """Within it, up to so many slots are acquired. Afterwards what is not used is released."""
        acquired = _Acquired(
            await self._in_flight.acquire(limit, self._destination, together=together)
        )
        try:
            yield acquired
        finally:
            used = sum(claim.body_bytes for claim in acquired.claims)
            count = len(acquired.claims)
            await self._in_flight.release(
                acquired.slots - count, acquired.body_bytes - used, destination=self._destination
            )
            self._rate_limiter.release(acquired.permits - count)

    async def _lease_fitting(
        self,
        connection: AsyncConnection,
        found: Mapping[UUID, Due],
        acquired: _Acquired,
        since: float,
    ) -> list[list[Claim]]:
        """Lease those of these that fit, in groups. The others stay at the front."""
        count = self._in_flight.fit([each.body_bytes for each in found.values()], self._destination)
        fitting = dict(islice(found.items(), count))
        acquired.body_bytes = sum(each.body_bytes for each in fitting.values())
        planned = groups([_candidate(each) for each in fitting.values()], self._to)
        limits = {id_: each.bundle_limit for id_, each in fitting.items()}
        claims = await leases.lease(
            connection,
            fitting,
            since=since,
            bundle_limits=limits_at_claim(planned, limits),
            **self._terms(),
        )
        leased = {claim.upload_id: claim for claim in claims}
        found_of = ([leased[id_] for id_ in group if id_ in leased] for group in planned)
        return [group for group in found_of if group]

    def _terms(self) -> LeaseTerms:
        return LeaseTerms(
            attempt_seconds=self._settings.attempt_seconds,
            lease_seconds=self._settings.lease_seconds,
            give_up_seconds=self._settings.give_up_seconds,
            process_id=self._heartbeats.process_id,
            allow_shared_ids=self._settings.allow_shared_ids,
        )

    async def _permits(self, limit: int) -> int:
        """Up to so many permits: waits a moment for at least one, else 0."""
        until = time.monotonic() + _PATIENCE
        return await wait_for_permits(
            self._rate_limiter, limit, until=until, stopping=self._stopping
        )


def _candidate(due: Due) -> Candidate:
    return Candidate(
        upload_id=due.id,
        user_id=due.user_id,
        fhir_version=due.fhir_version,
        body_bytes=due.body_bytes,
        limit=due.bundle_limit,
        # These read first, or do not send: nobody should wait for them.
        alone=due.cancel_requested or due.past_deadline or due.read_first,
    )
