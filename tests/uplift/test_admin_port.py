"""What the admin port of a process answers."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import REGISTRY

from uplift.admin_port import Check, loop_responds, served
from uplift.cli.local.ports import HOST, free_port
from uplift.errors import ConfigurationError
from uplift.metrics import uploads_parked
from uplift.settings import Settings


def get(path: str, check: Check = lambda: None) -> httpx.Response:
    port = free_port()
    with served(Settings(admin_port=port), check):
        return httpx.get(f"http://{HOST}:{port}{path}", trust_env=False)


def test_metrics_are_at_the_admin_port_while_it_is_open() -> None:
    port = free_port()
    with served(Settings(admin_port=port)):
        before = REGISTRY.get_sample_value("uplift_uploads_parked_total") or 0.0
        uploads_parked.inc()
        page = httpx.get(f"http://{HOST}:{port}/metrics", trust_env=False)
    assert f"uplift_uploads_parked_total {before + 1}" in page.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{HOST}:{port}/metrics", trust_env=False)


def test_a_process_that_works_is_alive() -> None:
    response = get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


def test_a_process_that_does_not_work_says_why() -> None:
    response = get("/healthz", lambda: "the event loop does not respond")
    assert response.status_code == 503
    assert response.json() == {"status": "failing", "why": "the event loop does not respond"}


def test_every_other_address_is_not_found() -> None:
    assert get("/").status_code == get("/metricsx").status_code == 404


def test_without_a_port_nothing_listens() -> None:
    threads = threading.active_count()
    with served(Settings()):
        assert threading.active_count() == threads


def test_a_port_that_is_taken_is_an_error_with_the_name_of_its_setting() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match="UPLIFT_ADMIN_PORT"),
            served(Settings(admin_port=port)),
        ):
            pass


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


def test_a_loop_that_runs_responds_and_one_that_hangs_does_not(
    loop: asyncio.AbstractEventLoop,
) -> None:
    assert loop_responds(loop)
    loop.call_soon_threadsafe(time.sleep, 0.09)
    assert not loop_responds(loop, 0.01)
    assert loop_responds(loop)


def test_a_closed_loop_does_not_respond() -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    assert not loop_responds(closed)
