"""Builds all the parts of a process, and closes them. No other file joins parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields

from redis.asyncio import Redis

from uplift.control.cancel import Canceller
from uplift.control.pause import Pauser
from uplift.control.redrive import Redriver
from uplift.control.try_now import TryNow
from uplift.delivery.attempt import Attempter
from uplift.delivery.deliver import Deliverer
from uplift.delivery.rate_limiter import RateLimiter
from uplift.destinations.client import FhirClient, open_http
from uplift.dispatch import Dispatcher
from uplift.fhir.tolerances import chosen_tolerances
from uplift.intake.accept import Acceptor
from uplift.intake.accept_batch import BatchAcceptor
from uplift.intake.authenticate import Authenticator
from uplift.intake.back_pressure import BackPressure
from uplift.key_check import KeyCheck
from uplift.ledger.database import Database
from uplift.ledger.suitable import check_at_start
from uplift.maintenance.measure import Measurer
from uplift.maintenance.retain import Retainer
from uplift.maintenance.sweep import Sweeper
from uplift.reading.long_poll import LongPoll
from uplift.reading.read_back import Reader
from uplift.reading.status import StatusOpener
from uplift.redis_connection import open_redis, redis_url
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.tokens.access import TokenAccess
from uplift.tokens.quota import Quota
from uplift.tokens.token_endpoint import TokenEndpoint
from uplift.users.erase import Eraser
from uplift.users.provision import Provisioner


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """What `beat` does. It opens no record, and asks 1upHealth nothing: it needs no such secret."""

    settings: Settings
    database: Database
    redis: Redis
    dispatcher: Dispatcher
    rate_limiter: RateLimiter
    quota: Quota
    eraser: Eraser
    sweeper: Sweeper
    retainer: Retainer
    measurer: Measurer


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay(Maintenance):
    """The use cases, wired for one process."""

    key_ring: KeyRing
    keys: KeyCheck
    authenticator: Authenticator
    acceptor: Acceptor
    batch_acceptor: BatchAcceptor
    provisioner: Provisioner
    long_poll: LongPoll
    statuses: StatusOpener
    deliverer: Deliverer
    reader: Reader
    redriver: Redriver
    try_now: TryNow
    canceller: Canceller
    pauser: Pauser


@asynccontextmanager
async def open_maintenance(settings: Settings) -> AsyncIterator[Maintenance]:
    """Build what maintains the ledger on the running loop, and close it at the end of the block.

    Raises ConfigurationError with the setting to change. PostgreSQL and Redis may be away.
    """
    await check_at_start(settings)
    database = Database.connect(settings)
    dispatcher = Dispatcher(settings)
    redis = open_redis(settings)
    quota = Quota(redis, settings)
    rate_limiter = RateLimiter(redis, settings)
    eraser = Eraser(database)
    sweeper = Sweeper(database, dispatcher, eraser, rate_limiter, settings)
    dispatcher.start()
    try:
        yield Maintenance(
            settings=settings,
            database=database,
            redis=redis,
            dispatcher=dispatcher,
            rate_limiter=rate_limiter,
            quota=quota,
            eraser=eraser,
            sweeper=sweeper,
            retainer=Retainer(database, settings),
            measurer=Measurer(database, dispatcher, quota, sweeper),
        )
    finally:
        await rate_limiter.close()
        await dispatcher.close()
        await redis.aclose()
        await database.close()


@asynccontextmanager
async def open_relay(settings: Settings) -> AsyncIterator[Relay]:
    """Build the relay on the running loop, and close it at the end of the block.

    Raises ConfigurationError with the setting to change. PostgreSQL and Redis may be away.
    """
    key_ring = read_key_ring(settings)
    async with open_maintenance(settings) as parts:
        database, dispatcher, rate_limiter = parts.database, parts.dispatcher, parts.rate_limiter
        keys = KeyCheck(database, key_ring)
        pressure = BackPressure(database, settings)
        # Some connections more than sends, so that a token refresh never waits for them.
        http = open_http(connections=settings.max_in_flight + 10)
        tokens = TokenEndpoint(http, settings, parts.quota)
        access = TokenAccess(database, tokens, settings)
        fhir = FhirClient(http, settings)
        attempter = Attempter(key_ring, access, fhir, rate_limiter, settings)
        long_poll = LongPoll(database)
        try:
            await keys.at_start()
            yield Relay(
                **{field.name: getattr(parts, field.name) for field in fields(Maintenance)},
                key_ring=key_ring,
                keys=keys,
                authenticator=Authenticator(database, key_ring),
                acceptor=Acceptor(database, key_ring, dispatcher, pressure, settings),
                batch_acceptor=BatchAcceptor(database, key_ring, dispatcher, pressure, settings),
                provisioner=Provisioner(database, key_ring, tokens, keys),
                long_poll=long_poll,
                statuses=StatusOpener(key_ring),
                deliverer=Deliverer(database, attempter, rate_limiter, settings),
                reader=Reader(database, key_ring, access, fhir, settings),
                redriver=Redriver(database, settings, dispatcher),
                try_now=TryNow(database, settings),
                canceller=Canceller(database),
                pauser=Pauser(database),
            )
        finally:
            await access.close()
            await long_poll.close()
            await pressure.close()
            await http.aclose()


def check(settings: Settings) -> None:
    """Raise ConfigurationError if `open_relay` does, without a connection to anything."""
    read_key_ring(settings)
    Database.connect(settings)
    redis_url(settings)
    chosen_tolerances(settings)


async def check_ledger(settings: Settings) -> None:
    """Raise ConfigurationError if the ledger cannot be in this database, or the key ring does not
    fit it. The ledger may be away."""
    await check_at_start(settings)
    database = Database.connect(settings)
    try:
        await KeyCheck(database, read_key_ring(settings)).at_start()
    finally:
        await database.close()


def read_key_ring(settings: Settings) -> KeyRing:
    """The key ring of the master keys. Raises ConfigurationError if it is missing or malformed."""
    keys = settings.master_keys
    return KeyRing.parse(keys.get_secret_value() if keys is not None else "")
