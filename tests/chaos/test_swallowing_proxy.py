"""A connection whose packets are lost stays open; when they flow again, new ones work."""

import socket
import threading
from collections.abc import Iterator

import pytest

from chaos.swallowing_proxy import SwallowingProxy


@pytest.fixture
def proxy() -> Iterator[SwallowingProxy]:
    """Before a server that answers with what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

        def echo(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(100):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        with SwallowingProxy(server.getsockname()[1]) as proxy:
            yield proxy
        server.shutdown(socket.SHUT_RDWR)


def connect(proxy: SwallowingProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=2)


def is_answered(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    except TimeoutError:
        return False


def test_what_is_lost_stays_lost_and_new_connections_work(proxy: SwallowingProxy) -> None:
    with connect(proxy) as before:
        assert is_answered(before)
        with proxy.swallowing():
            assert not is_answered(before)
            during = connect(proxy)
            assert not is_answered(during)
        with connect(proxy) as after, during:
            assert is_answered(after)
            assert not is_answered(before)
            assert not is_answered(during)
