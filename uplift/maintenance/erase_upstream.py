"""Deletes what erased users have at destinations, before they are erased here.

Beat goes on with it, whoever asked. What is to be done stands in the ledger: after a kill another
process goes on, and at worst a request is repeated. No transaction is open during a request.
"""

import asyncio
import time
from collections.abc import Mapping
from uuid import UUID

import orjson
import structlog

from uplift.address_check import AddressCheck
from uplift.delivery.permits import wait_for_permits
from uplift.delivery.rate_limiter import RateLimiter
from uplift.destinations.destination import Mode
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import NeedsAuthorization, SealError, TokenUnavailable
from uplift.ledger import destinations as known_destinations
from uplift.ledger import erasing, erasing_upstream, leaving_records, upstream_deletions
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database, is_away
from uplift.ledger.upstream_deletions import Claimed, Done, target_context
from uplift.ledger.users import key_context
from uplift.maintenance.upstream_requests import Target, delete_or_see_gone
from uplift.metrics import erasures_left_upstream
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.tokens.channels import Channel, Channels
from uplift.tokens.person import AccessToken, Person
from uplift.users.targets import Targets

_log = structlog.get_logger(__name__)

_MAX_USERS = 100  # in one round
_MAX_RECORDS = 500  # in one transaction
_MAX_AT_ONCE = 20  # requests
_ROUND_SECONDS = 20.0
# A row that is claimed is another's after so many attempts' time.
_CLAIM_ATTEMPTS = 2
_HELD = (ResponseKind.REFUSED, ResponseKind.UNAUTHORIZED, ResponseKind.HOLD)


class UpstreamEraser:
    """Goes on with every erasure that is upstream too."""

    def __init__(
        self,
        database: Database,
        key_ring: KeyRing,
        channels: Channels,
        addresses: AddressCheck,
        rate_limiters: Mapping[str, RateLimiter],
        settings: Settings,
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._channels = channels
        self._destinations = {name: each.destination for name, each in channels.items()}
        self._addresses = addresses
        self._rate_limiters = rate_limiters
        self._settle_seconds = settings.settle_seconds
        self._attempt_seconds = settings.attempt_seconds
        self._hold_seconds = settings.hold_seconds
        self._backoff_first_seconds = settings.backoff_first_seconds
        self._max_backoff_seconds = settings.max_backoff_seconds
        self._days = settings.erase_upstream_days
        self._watched_since: dict[UUID, float] = {}  # on time.monotonic

    async def go_on(self) -> int:
        """One round over all of them; of how many users it ended.

        If a user's things cannot be listed, that is logged, and the others go on.
        """
        async with self._database.transaction() as connection:
            user_ids = await erasing_upstream.some(connection, limit=_MAX_USERS)
        if not user_ids:
            return 0
        for user_id in user_ids:
            try:
                while await self._list_some(user_id):
                    pass
            except Exception as error:
                if is_away(error):
                    raise
                # Only the type: an error's text may quote data.
                _log.error("erasing_upstream_failed", error=type(error).__name__)
        usable = await self._addresses.usable()
        async with self._database.transaction() as connection:
            await upstream_deletions.tell_unusable(connection, usable)
        await asyncio.gather(*(self._delete_at(name) for name in usable))
        return sum([await self._end(user_id) for user_id in user_ids])

    # --- what is there -----------------------------------------------------------------------

    async def _list_some(self, user_id: UUID) -> bool:
        """List what some of the user's records became; whether there is more to list now."""
        now = time.monotonic()
        async with self._database.transaction() as connection:
            user = await erasing_upstream.lock(connection, user_id)
            if user is None:
                return False
            if not await erasing_upstream.is_settled(
                connection,
                user_id,
                look_up_at=[n for n, d in self._destinations.items() if d.mode is Mode.ONEUP],
                settle_seconds=self._settle_seconds,
                attempt_seconds=self._attempt_seconds,
                watched_seconds=now - self._watched_since.setdefault(user_id, now),
                limit=_MAX_RECORDS,
            ):
                return False
            addresses = await known_destinations.read_addresses(connection)
            targets = Targets(user_id, user.key(self._key_ring), self._destinations, addresses)
            records = await leaving_records.some_records(connection, user_id, limit=_MAX_RECORDS)
            for record in records:
                targets.add_record(record)
            await leaving_records.remove_records(connection, records)
            thinned = await leaving_records.take_tombstones(connection, user_id, limit=_MAX_RECORDS)
            for row in thinned:
                targets.add_tombstone(row)
            await upstream_deletions.add(connection, user_id, targets.new)
            await leaving_records.add_lost(connection, user_id, targets.lost)
            return bool(records or thinned)

    # --- the requests ------------------------------------------------------------------------

    async def _delete_at(self, name: str) -> None:
        """Delete what is due at one destination, as fast as its rate limiter lets it.

        A request that stalls keeps no other waiting.
        """
        until = time.monotonic() + _ROUND_SECONDS
        running: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as requests:
            while time.monotonic() < until:
                claims = await self._claim(name, limit=_MAX_AT_ONCE - len(running), until=until)
                running |= {requests.create_task(self._do(name, each)) for each in claims}
                if not running:
                    return
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    async def _claim(self, name: str, *, limit: int, until: float) -> list[Claimed]:
        async with self._database.reading() as connection:
            due = await upstream_deletions.count_due(connection, name, limit=limit)
        # A round that ended without a permit would spend most of its time between rounds.
        permits = await wait_for_permits(self._rate_limiters[name], due, until=until)
        if not permits:
            return []
        async with self._database.transaction() as connection:
            claims = await upstream_deletions.claim(
                connection,
                name,
                limit=permits,
                seconds=_CLAIM_ATTEMPTS * self._attempt_seconds,
            )
        self._rate_limiters[name].release(permits - len(claims))
        return claims

    async def _do(self, name: str, claimed: Claimed) -> None:
        done = await self._ask(name, claimed)
        async with self._database.transaction() as connection:
            await upstream_deletions.record(connection, done)

    async def _ask(self, name: str, claimed: Claimed) -> Done:
        """Delete the resource; or read it, if the destination has said that it is gone."""
        channel = self._channels[name]
        try:
            key = self._key_ring.unwrap(claimed.wrapped_key, key_context(claimed.user_id))
            sealed = key.open(claimed.sealed_target, target_context(claimed.user_id, claimed.key))
            person = Person(claimed.user_id, claimed.app_user_id, key)
            response = await self._call(channel, person, claimed, orjson.loads(sealed))
        except NeedsAuthorization:
            return self._later(claimed, "needs_authorization", self._hold_seconds)
        except TokenUnavailable as error:
            return self._later(claimed, error.code, error.retry_after or 0.0)
        except SealError:
            return self._later(claimed, "sealed", self._hold_seconds)
        except Exception as error:  # noqa: BLE001  one resource must not keep the others
            _log.error("upstream_deletion_failed", error=type(error).__name__)
            return self._later(claimed, f"failed_{type(error).__name__}")
        return self._after(claimed, response)

    async def _call(
        self, channel: Channel, person: Person, claimed: Claimed, target: Target
    ) -> Response:
        deadline = time.monotonic() + self._attempt_seconds
        asked_at = time.monotonic()

        async def ask(token: AccessToken) -> Response:
            nonlocal asked_at
            asked_at = time.monotonic()
            return await delete_or_see_gone(channel, token, claimed, target, deadline=deadline)

        response = await channel.access.with_token(person, ask)
        # That it may not delete says nothing about what is written there.
        if response.kind is not ResponseKind.REFUSED:
            self._rate_limiters[claimed.destination].answered(
                response,
                asked_at,
                fhir_type=claimed.fhir_type,
                upload_id=UUID(bytes=claimed.key[:16]),
                user_id=claimed.user_id,
            )
        return response

    # --- what follows ------------------------------------------------------------------------

    def _after(self, claimed: Claimed, response: Response) -> Done:
        match response.kind:
            case ResponseKind.ABSENT if claimed.deleted:
                return Done(claimed, gone=True)
            case ResponseKind.FOUND if claimed.deleted:
                # What was under way arrived after the deletion.
                return Done(claimed, problem="found_again")
            case ResponseKind.DELETED | ResponseKind.ABSENT:
                return Done(claimed, deleted=True, seconds=self._settle_seconds)
        floor = self._hold_seconds if response.kind in _HELD else 0.0
        return self._later(claimed, response.code, max(floor, response.retry_after or 0.0))

    def _later(self, claimed: Claimed, problem: str, floor: float = 0.0) -> Done:
        pause = self._backoff_first_seconds * 2.0 ** min(claimed.tries, 20)
        seconds = max(floor, min(pause, self._max_backoff_seconds))
        return Done(claimed, deleted=claimed.deleted, seconds=seconds, problem=problem)

    async def _end(self, user_id: UUID) -> bool:
        """Erase the user here, if nothing is left to be deleted or it took too long; whether."""
        async with self._database.transaction() as connection:
            user = await erasing_upstream.lock(connection, user_id)
            if user is None or not await erasing_upstream.has_ended(
                connection, user_id, days=self._days
            ):
                return False
            progress = await erasing_upstream.progress(connection, user.app_user_id)
            left = progress.left + progress.lost if progress is not None else 0
            await erasing.begin(connection, user.app_user_id, SYSTEM, left_upstream=left)
        self._watched_since.pop(user_id, None)
        if left:
            erasures_left_upstream.inc()
            _log.warning("erased_here_only", left=left)
        else:
            _log.info("erased_upstream")
        return True
