"""The bridge from Celery's threads to the loop of the relay."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from uplift.errors import ConfigurationError
from uplift.ledger import users
from uplift.settings import Settings
from uplift.wiring import Relay
from uplift.worker.bridge import UseCaseFailed, open_bridge


def test_use_cases_of_all_threads_run_on_one_loop(settings: Settings) -> None:
    async def where(_: Relay) -> tuple[str, int]:
        return threading.current_thread().name, id(asyncio.get_running_loop())

    with open_bridge(settings) as bridge, ThreadPoolExecutor(4) as threads:
        seen = set(threads.map(lambda _: bridge.call(where), range(8)))
    assert len(seen) == 1
    assert next(iter(seen))[0] == "relay"


def test_an_error_crosses_without_its_text(settings: Settings) -> None:
    async def fail(_: Relay) -> None:
        raise ValueError("a person's name")

    with open_bridge(settings) as bridge, pytest.raises(UseCaseFailed) as caught:
        bridge.call(fail)
    assert str(caught.value) == "ValueError"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_relay_behind_it_works(settings: Settings) -> None:
    async def use(relay: Relay) -> bool:
        async with relay.database.transaction() as connection:
            return await users.find_user(connection, "nobody") is None

    with open_bridge(settings) as bridge:
        assert bridge.call(use)


def test_a_use_case_that_never_ends_does_not_delay_the_end(settings: Settings) -> None:
    begun = threading.Event()

    async def hang(_: Relay) -> None:
        begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as threads:
        with open_bridge(settings) as bridge:
            left = threads.submit(bridge.call, hang)
            assert begun.wait(10)
        assert left.exception(10) is not None


def test_a_wrong_setting_ends_the_start_with_its_name(settings: Settings) -> None:
    wrong = settings.model_copy(update={"master_keys": None})
    with pytest.raises(ConfigurationError, match="UPLIFT_MASTER_KEYS"), open_bridge(wrong):
        pass
