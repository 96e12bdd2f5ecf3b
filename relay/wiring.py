"""Builds everything a process needs, once, and closes it: the only place that joins parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from relay.accept import Acceptor
from relay.attempt import Attempter
from relay.authorize import Authorizer
from relay.bell import Bell
from relay.deliver import Deliverer
from relay.errors import ConfigurationError
from relay.ledger.database import Database
from relay.oneup.client import FhirClient, open_http
from relay.oneup.tokens import TokenClient
from relay.provision import Provisioner
from relay.sealing import KeyRing
from relay.settings import Settings
from relay.sweep import Sweeper
from relay.watch import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """The use cases, wired for one process."""

    settings: Settings
    database: Database
    ring: KeyRing
    bell: Bell
    acceptor: Acceptor
    provisioner: Provisioner
    watcher: Watcher
    deliverer: Deliverer
    sweeper: Sweeper


@asynccontextmanager
async def open_relay(settings: Settings) -> AsyncIterator[Relay]:
    """Wire the relay on the running loop; close all of it at the end of the block.

    Raises ConfigurationError that names the setting to change.
    """
    ring = key_ring(settings)
    database = Database.connect(settings)
    bell = Bell(settings)
    # One connection more than sends, so that a refresh never waits behind a full window.
    http = open_http(connections=settings.send_slots + 10)
    tokens = TokenClient(http, settings)
    authorizer = Authorizer(database, tokens, settings)
    attempter = Attempter(ring, authorizer, FhirClient(http, settings), settings)
    watcher = Watcher(database)
    bell.start()
    try:
        yield Relay(
            settings=settings,
            database=database,
            ring=ring,
            bell=bell,
            acceptor=Acceptor(database, ring, bell, settings),
            provisioner=Provisioner(database, ring, tokens),
            watcher=watcher,
            deliverer=Deliverer(database, attempter, settings),
            sweeper=Sweeper(database, bell, settings),
        )
    finally:
        await watcher.close()
        await bell.close()
        await http.aclose()
        await database.close()


def key_ring(settings: Settings) -> KeyRing:
    """The master key ring. Raises ConfigurationError if there is none, or it is malformed."""
    if settings.master_keys is None:
        raise ConfigurationError(
            "UPLIFT_MASTER_KEYS is not set. `uplift keys master` prints a new key; keep it where"
            " your secrets are: what it sealed cannot be read without it."
        )
    return KeyRing.parse(settings.master_keys.get_secret_value())
