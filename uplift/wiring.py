"""Builds everything a process needs, once, and closes it: the only place that joins parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from uplift.control.cancel import Canceller
from uplift.control.pause import Pauser
from uplift.control.redrive import Redriver
from uplift.delivery.attempt import Attempter
from uplift.delivery.deliver import Deliverer
from uplift.delivery.rate_limiter import Pace
from uplift.destinations.client import FhirClient, open_http
from uplift.dispatch import Bell, redis_url
from uplift.intake.accept import Acceptor
from uplift.intake.accept_batch import BatchAcceptor
from uplift.intake.authenticate import Authenticator
from uplift.intake.back_pressure import BackPressure
from uplift.key_check import KeyCheck
from uplift.ledger.database import Database
from uplift.maintenance.measure import Measurer
from uplift.maintenance.retain import Retainer
from uplift.maintenance.sweep import Sweeper
from uplift.reading.long_poll import Watcher
from uplift.reading.read_back import Reader
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.tokens.access import Authorizer
from uplift.tokens.quota import Budget
from uplift.tokens.token_endpoint import TokenClient
from uplift.users.erase import Eraser
from uplift.users.provision import Provisioner

# Redis that is away must show quickly: uploads hold their leases while they wait for it. One more
# try, for a connection that a restart of Redis broke.
_COUNTER: dict[str, Any] = {
    "socket_connect_timeout": 1.0,
    "socket_timeout": 2.0,
    "retry": Retry(NoBackoff(), 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """The use cases, wired for one process."""

    settings: Settings
    database: Database
    ring: KeyRing
    keys: KeyCheck
    bell: Bell
    pace: Pace
    authenticator: Authenticator
    acceptor: Acceptor
    batch_acceptor: BatchAcceptor
    provisioner: Provisioner
    watcher: Watcher
    deliverer: Deliverer
    sweeper: Sweeper
    retainer: Retainer
    measurer: Measurer
    eraser: Eraser
    reader: Reader
    redriver: Redriver
    canceller: Canceller
    pauser: Pauser


@asynccontextmanager
async def open_relay(settings: Settings) -> AsyncIterator[Relay]:
    """Wire the relay on the running loop; close all of it at the end of the block.

    Raises ConfigurationError that names the setting to change.
    """
    ring = key_ring(settings)
    database = Database.connect(settings)
    keys = KeyCheck(database, ring)
    bell = Bell(settings)
    pressure = BackPressure(database, settings)
    # One connection more than sends, so that a refresh never waits behind a full window.
    http = open_http(connections=settings.send_slots + 10)
    counter = redis.asyncio.from_url(redis_url(settings), **_COUNTER)
    budget = Budget(counter, settings)
    tokens = TokenClient(http, settings, budget)
    authorizer = Authorizer(database, tokens, settings)
    fhir = FhirClient(http, settings)
    pace = Pace(counter, settings)
    attempter = Attempter(ring, authorizer, fhir, pace, settings)
    watcher = Watcher(database)
    eraser = Eraser(database)
    sweeper = Sweeper(database, bell, eraser, pace, settings)
    bell.start()
    try:
        await keys.at_start()
        yield Relay(
            settings=settings,
            database=database,
            ring=ring,
            keys=keys,
            bell=bell,
            pace=pace,
            authenticator=Authenticator(database),
            acceptor=Acceptor(database, ring, bell, pressure, settings),
            batch_acceptor=BatchAcceptor(database, ring, bell, pressure, settings),
            provisioner=Provisioner(database, ring, tokens, keys),
            watcher=watcher,
            deliverer=Deliverer(database, attempter, pace, settings),
            sweeper=sweeper,
            measurer=Measurer(database, bell, budget, sweeper),
            retainer=Retainer(database, settings),
            eraser=eraser,
            reader=Reader(database, ring, authorizer, fhir, settings),
            redriver=Redriver(database, settings, bell),
            canceller=Canceller(database),
            pauser=Pauser(database),
        )
    finally:
        await authorizer.close()
        await pace.close()
        await watcher.close()
        await pressure.close()
        await bell.close()
        await http.aclose()
        await counter.aclose()
        await database.close()


def check(settings: Settings) -> None:
    """Raise the ConfigurationError that `open_relay` would, without opening anything."""
    key_ring(settings)
    Database.connect(settings)
    redis_url(settings)


async def check_keys(settings: Settings) -> None:
    """Raise the ConfigurationError of a key ring that does not fit a ledger that answers now."""
    database = Database.connect(settings)
    try:
        await KeyCheck(database, key_ring(settings)).at_start()
    finally:
        await database.close()


def key_ring(settings: Settings) -> KeyRing:
    """The master key ring. Raises ConfigurationError if there is none, or it is malformed."""
    keys = settings.master_keys
    return KeyRing.parse(keys.get_secret_value() if keys is not None else "")
