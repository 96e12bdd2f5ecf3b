"""The crossing from Celery's threads to the relay's loop."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from uplift.errors import ConfigurationError
from uplift.ledger import users
from uplift.settings import Settings
from uplift.wiring import Relay
from uplift.worker.bridge import Bridge, UseCaseFailed


@pytest.fixture
def bridge(settings: Settings) -> Bridge:
    return Bridge(settings)


def test_use_cases_of_all_threads_run_on_one_loop(bridge: Bridge) -> None:
    bridge.open()

    async def where(_: Relay) -> tuple[str, int]:
        return threading.current_thread().name, id(asyncio.get_running_loop())

    with ThreadPoolExecutor(4) as threads:
        seen = set(threads.map(lambda _: bridge.call(where), range(8)))
    bridge.close()
    assert len(seen) == 1
    assert next(iter(seen))[0] == "relay"


def test_an_error_crosses_without_its_text(bridge: Bridge) -> None:
    bridge.open()

    async def fail(_: Relay) -> None:
        raise ValueError("a person's name")

    with pytest.raises(UseCaseFailed) as caught:
        bridge.call(fail)
    bridge.close()
    assert str(caught.value) == "ValueError"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_relay_behind_it_is_a_working_one(bridge: Bridge) -> None:
    bridge.open()

    async def use(relay: Relay) -> bool:
        async with relay.database.transaction() as connection:
            return await users.find_user(connection, "nobody") is None

    assert bridge.call(use)
    bridge.close()


def test_a_closed_bridge_says_so(bridge: Bridge) -> None:
    async def use(_: Relay) -> None: ...

    with pytest.raises(RuntimeError, match="not open"):
        bridge.call(use)
    bridge.close()


def test_a_wrong_setting_ends_the_start_with_its_name(settings: Settings) -> None:
    bridge = Bridge(settings.model_copy(update={"master_keys": None}))
    with pytest.raises(ConfigurationError, match="UPLIFT_MASTER_KEYS"):
        bridge.open()
    bridge.close()
