"""What operators can read of a process."""

import socket

import httpx
import pytest

from cli.ports import HOST, free_port
from relay.errors import ConfigurationError
from relay.metrics import served, uploads_parked
from relay.settings import Settings


def test_counts_are_read_at_the_operator_port() -> None:
    port = free_port()
    with served(Settings(metrics_port=port)):
        before = uploads_parked._value.get()
        uploads_parked.inc()
        page = httpx.get(f"http://{HOST}:{port}/metrics", trust_env=False)
    assert f"uplift_uploads_parked_total {before + 1}" in page.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{HOST}:{port}/metrics", trust_env=False)


def test_without_a_port_nothing_listens() -> None:
    with served(Settings()):
        pass


def test_a_port_that_is_taken_is_told_by_the_name_of_its_setting() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match="UPLIFT_METRICS_PORT"),
            served(Settings(metrics_port=port)),
        ):
            pass
