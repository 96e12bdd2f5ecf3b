"""The API with a real PostgreSQL and Redis: in this process, or behind sockets if they matter."""

import io
import logging
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI

from tests import factories
from tests.api.calls import Keys, bearer, make_keys
from tests.api.serving import ApiServer, app_of
from uplift.ledger.database import Database
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """The app changes the root logger. Restore it after each test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in handlers:
        if handler not in root.handlers:
            root.addHandler(handler)
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
async def app(database: Database, settings: Settings) -> AsyncIterator[FastAPI]:
    """The started application, with an empty ledger."""
    made = app_of(settings)
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
def relay(app: FastAPI) -> Relay:
    """The relay that the application opened."""
    opened: Relay = app.state.relay
    return opened


@pytest.fixture
async def keys(database: Database) -> Keys:
    """A backend's and an operator's key."""
    return await make_keys(database)


@pytest.fixture
async def key(database: Database, settings: Settings) -> str:
    """A backend's key, in a ledger that knows alice."""
    async with open_relay(settings) as relay:
        await factories.user_without_grant(relay)
    return (await make_keys(database)).backend


@pytest.fixture
async def anybody(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a credential."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://uplift") as client:
        yield client


@pytest.fixture
async def client(app: FastAPI, keys: Keys) -> AsyncIterator[httpx.AsyncClient]:
    """The backend's client."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://uplift", headers=bearer(keys.backend)
    ) as client:
        yield client


@pytest.fixture
async def alice(relay: Relay) -> str:
    """A user's name."""
    return (await factories.user_without_grant(relay, "alice")).app_user_id


@pytest.fixture
async def bob(relay: Relay) -> str:
    """Another user's name."""
    return (await factories.user_without_grant(relay, "bob")).app_user_id


@pytest.fixture
def server(database: Database, settings: Settings) -> Iterator[ApiServer]:
    """The application behind uvicorn, with an empty ledger."""
    with ApiServer(settings) as running:
        yield running


@pytest.fixture
def log(anybody: httpx.AsyncClient) -> Iterator[io.StringIO]:
    """What the app logs from now on."""
    (handler,) = [
        each
        for each in logging.getLogger().handlers
        if type(each) is logging.StreamHandler and "ProcessorFormatter" in str(each.formatter)
    ]
    written = io.StringIO()
    before = handler.setStream(written)
    yield written
    if before is not None:
        handler.setStream(before)
