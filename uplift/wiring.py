"""Builds all the parts of a process, and closes them. No other file joins parts."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from uplift import traces
from uplift.address_check import AddressCheck
from uplift.control.cancel import Canceller
from uplift.control.pause import Pauser
from uplift.control.redrive import Redriver
from uplift.control.try_now import TryNow
from uplift.delivery.attempt import Attempter
from uplift.delivery.deliver import Deliverer
from uplift.delivery.heartbeats import Heartbeats
from uplift.delivery.rate_limiter import RateLimiter
from uplift.destinations.configured import configured_destinations
from uplift.destinations.derived_ids import read_id_key
from uplift.destinations.destination import Destinations
from uplift.destinations.http_client import open_http
from uplift.dispatch import Dispatcher
from uplift.fhir.tolerances import chosen_tolerances
from uplift.intake.accept import Acceptor
from uplift.intake.accept_batch import BatchAcceptor
from uplift.intake.authenticate import Authenticator
from uplift.intake.back_pressure import BackPressure
from uplift.key_check import KeyCheck
from uplift.key_source import follow_folder, read_key_ring
from uplift.ledger.database import FOR_NOBODY, Database, Patience
from uplift.ledger.suitable import check_at_start
from uplift.maintenance.erase_upstream import UpstreamEraser
from uplift.maintenance.measure import Measurer
from uplift.maintenance.retain import Retainer
from uplift.maintenance.retry_collisions import CollisionRetrier
from uplift.maintenance.seal_trail import Sealer
from uplift.maintenance.sweep import Sweeper
from uplift.reading.long_poll import LongPoll
from uplift.reading.read_back import Reader
from uplift.reading.status import StatusOpener
from uplift.redis_connection import open_redis, redis_url
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.tokens.access import TokenAccess
from uplift.tokens.channels import Channels
from uplift.tokens.quota import Quota
from uplift.tokens.token_endpoint import TokenEndpoint
from uplift.users.erase import Eraser
from uplift.users.move import Mover
from uplift.users.patients import PatientNamer
from uplift.users.provision import Provisioner


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """The use cases, wired for one process."""

    settings: Settings
    database: Database
    key_ring: KeyRing
    destinations: Destinations
    keys: KeyCheck
    dispatcher: Dispatcher
    rate_limiters: Mapping[str, RateLimiter]
    authenticator: Authenticator
    acceptor: Acceptor
    batch_acceptor: BatchAcceptor
    provisioner: Provisioner
    long_poll: LongPoll
    statuses: StatusOpener
    heartbeats: Heartbeats
    deliverer: Deliverer
    sweeper: Sweeper
    retainer: Retainer
    measurer: Measurer
    sealer: Sealer
    eraser: Eraser
    upstream_eraser: UpstreamEraser
    mover: Mover
    patient_namer: PatientNamer
    reader: Reader
    redriver: Redriver
    try_now: TryNow
    canceller: Canceller
    pauser: Pauser


@asynccontextmanager
async def open_relay(settings: Settings, patience: Patience = FOR_NOBODY) -> AsyncIterator[Relay]:
    """Build the relay on the running loop, and close it at the end of the block.

    Raises ConfigurationError with the setting to change. PostgreSQL and Redis may be away.
    """
    key_ring = read_key_ring(settings)
    destinations = configured_destinations(settings)
    database = Database.connect(settings, patience)
    keys = KeyCheck(database, key_ring)
    dispatcher = Dispatcher(settings)
    pressure = BackPressure(database, settings)
    http = open_http(connections=settings.max_in_flight + 10)
    redis = open_redis(settings)
    quota = Quota(redis, settings)
    tokens = TokenEndpoint(http, settings, quota)
    access = TokenAccess(
        database,
        tokens,
        settings,
        [name for name, each in destinations.items() if each.needs_grant],
    )
    channels = Channels(destinations, access, redis, key_ring, settings)
    rate_limiters = {
        name: RateLimiter(redis, settings, name, limit=each.max_attempts_per_second)
        for name, each in destinations.items()
    }
    heartbeats = Heartbeats(database, settings)
    attempter = Attempter(key_ring, channels, rate_limiters, heartbeats, database, settings)
    long_poll = LongPoll(database)
    id_key = read_id_key(settings)
    eraser = Eraser(database, key_ring, settings, destinations, id_key)
    addresses = AddressCheck(database, destinations)
    mover = Mover(database, destinations)
    retrier = CollisionRetrier(database, key_ring)
    sweeper = Sweeper(
        database, dispatcher, eraser, mover, retrier, addresses, rate_limiters, settings
    )
    dispatcher.start()
    following = _follow(key_ring, settings)
    try:
        await keys.at_start()
        await addresses.at_start()
        yield Relay(
            settings=settings,
            database=database,
            key_ring=key_ring,
            destinations=destinations,
            keys=keys,
            dispatcher=dispatcher,
            rate_limiters=rate_limiters,
            authenticator=Authenticator(database, key_ring),
            acceptor=Acceptor(database, key_ring, dispatcher, pressure, destinations, id_key),
            batch_acceptor=BatchAcceptor(
                database, key_ring, dispatcher, pressure, destinations, settings
            ),
            provisioner=Provisioner(database, key_ring, tokens, keys, destinations),
            long_poll=long_poll,
            statuses=StatusOpener(key_ring),
            heartbeats=heartbeats,
            deliverer=Deliverer(
                database, attempter, addresses, rate_limiters, destinations, heartbeats, settings
            ),
            sweeper=sweeper,
            measurer=Measurer(database, dispatcher, quota, sweeper, key_ring, settings),
            sealer=Sealer(database, key_ring),
            retainer=Retainer(database, settings),
            eraser=eraser,
            upstream_eraser=UpstreamEraser(
                database, key_ring, channels, addresses, rate_limiters, settings
            ),
            mover=mover,
            patient_namer=PatientNamer(database, key_ring, destinations),
            reader=Reader(database, key_ring, channels, settings, id_key),
            redriver=Redriver(database, settings, dispatcher),
            try_now=TryNow(database, settings),
            canceller=Canceller(database),
            pauser=Pauser(database),
        )
    finally:
        following.cancel()
        await channels.close()
        await access.close()
        for rate_limiter in rate_limiters.values():
            await rate_limiter.close()
        await long_poll.close()
        await pressure.close()
        await dispatcher.close()
        await http.aclose()
        # Only now nothing more can be sent.
        await heartbeats.close()
        await redis.aclose()
        await database.close()


def _follow(key_ring: KeyRing, settings: Settings) -> "asyncio.Future[None]":
    """Let the key ring follow its folder, if it has one."""
    folder = settings.master_keys_dir
    if folder is None:
        return asyncio.get_running_loop().create_future()
    return asyncio.ensure_future(follow_folder(folder, key_ring))


def check(settings: Settings) -> None:
    """Raise ConfigurationError if `open_relay` does, without a connection to anything."""
    read_key_ring(settings)
    configured_destinations(settings)
    Database.connect(settings)
    redis_url(settings)
    chosen_tolerances(settings)
    traces.check(settings)


async def check_ledger(settings: Settings) -> None:
    """Raise ConfigurationError if the ledger cannot be in this database, or the key ring does not
    fit it. The ledger may be away."""
    await check_at_start(settings)
    database = Database.connect(settings)
    try:
        await KeyCheck(database, read_key_ring(settings)).at_start()
    finally:
        await database.close()
