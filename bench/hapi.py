"""Records a second at HAPI FHIR JPA over PostgreSQL: Uplift and a bare loop, singly and in Bundles.

HAPI has a database and a role of its own in the testbed's PostgreSQL. HAPI, both databases and
Uplift share the cores. Wants Maven and a JDK.
"""

import secrets
from pathlib import Path

import psycopg
from psycopg import sql

from bench.figures import Figure
from bench.plan import Plan
from bench.real_server import Server, measure, warm_up
from bench.testbed import Testbed, open_testbed
from bench.upstream import Upstream
from tests.hapi.server import build, missing, run
from uplift.cli.local.ports import HOST, free_port

_NAME = "hapi"
_COUNTS = (500, 1000, 1000)
_WARM_UP = (2000, 6000)  # singly, in Bundles


def lacking() -> str | None:
    """The program without which this cannot run; None if all are here."""
    return missing()


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure all shapes."""
    build()
    port = free_port(None)
    base = f"http://{HOST}:{port}/fhir"
    settings = {
        "UPLIFT_DESTINATION": "hapi",
        "UPLIFT_DESTINATION_R4": base,
        "UPLIFT_SECOND_OPINION": "0.05",
    }
    with (
        # Nobody is at 1upHealth here.
        open_testbed(
            folder / "uplift", Upstream(base), processes=("beat",), settings=settings
        ) as testbed,
        run(
            "r4", log=folder / "hapi.log", heap="2g", database=_database(testbed), port=port
        ) as running,
    ):
        server = Server(name=_NAME, base=running.base, pid=running.pid)
        warm_up(server, *(plan.of(count) for count in _WARM_UP))
        return measure(testbed, server, plan, _COUNTS)


def _database(testbed: Testbed) -> str:
    """Make HAPI's database and its role. Returns the JDBC URL."""
    password, name = secrets.token_hex(16), sql.Identifier(_NAME)
    with psycopg.connect(testbed.superuser_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(password))
        )
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
        at = connection.info
        return f"jdbc:postgresql://{at.host}:{at.port}/{_NAME}?user={_NAME}&password={password}"
