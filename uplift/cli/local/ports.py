"""Loopback ports for servers of our own."""

import random
import socket

HOST = "127.0.0.1"

# Below the ranges from which Linux (32768-) and macOS (49152-) take the ports of outgoing
# connections. On a port inside them a client that retries while the server is down can be given
# that very port, connect to itself, and so keep the server from coming back.
_PORTS = range(20000, 32000)


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(usual: int | None = None) -> int:
    """The usual port if it is free, else any free one. Another program may still take it first."""
    if usual is not None and is_free(usual):
        return usual
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - to avoid each other, not to be secret
        if is_free(port):
            return port
