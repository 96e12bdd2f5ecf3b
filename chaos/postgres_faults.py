"""Faults of a PostgreSQL that is there and does not do its work."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import psycopg
from psycopg import sql

from uplift.cli.local.embedded import EmbeddedPostgres


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Its connections stay open, and nothing answers."""
    assert server.pid is not None  # noqa: S101  only what runs can be frozen
    postmaster = psutil.Process(server.pid)
    # The postmaster first, so that it starts no further process.
    stopped = [postmaster]
    postmaster.suspend()
    for child in postmaster.children(recursive=True):
        child.suspend()
        stopped.append(child)
    try:
        yield
    finally:
        for process in reversed(stopped):
            process.resume()


@contextmanager
def standby_away(server: EmbeddedPostgres) -> Iterator[None]:
    """Every commit waits for a synchronous standby that does not come. Not with
    `synchronous_commit` off."""
    configure(server, synchronous_standby_names="nobody")
    try:
        yield
    finally:
        configure(server, synchronous_standby_names="")


@contextmanager
def locked(server: EmbeddedPostgres) -> Iterator[None]:
    """Somebody holds a lock on the uploads, as a VACUUM FULL does. It can be read otherwise."""
    with psycopg.connect(server.url) as connection:
        connection.execute("LOCK TABLE uploads IN ACCESS EXCLUSIVE MODE")
        yield


def make_read_only(server: EmbeddedPostgres, read_only: bool = True) -> None:
    """What was a primary is a standby now, or the other way round."""
    configure(server, default_transaction_read_only="on" if read_only else "off")


def configure(server: EmbeddedPostgres, **settings: str) -> None:
    """Change settings of the running server."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for name, value in settings.items():
            connection.execute(
                sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
            )
        connection.execute("SELECT pg_reload_conf()")
