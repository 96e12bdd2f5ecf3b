"""Records a second at sekmet-fhir: Uplift and a bare loop, singly and in Bundles.

It is a server in Python that validates strictly, wants a login, and does one thing after the other.
Wants `make tools`.
"""

from pathlib import Path

from bench.figures import Figure
from bench.plan import Plan
from bench.real_server import Server, measure, warm_up
from bench.testbed import open_testbed
from bench.upstream import Upstream
from tests.wide.programs import TOOLS
from tests.wide.sekmet import CLIENT_ID, SECRET, run_sekmet

_COUNTS = (200, 400, 400)
_WARM_UP = (50, 200)  # singly, in Bundles


def lacking() -> str | None:
    """The program without which this cannot run; None if it is here."""
    return None if (TOOLS / "sekmet").exists() else "sekmet (make tools)"


def main(folder: Path, plan: Plan) -> list[Figure]:
    """Measure all shapes."""
    with run_sekmet(folder, token_seconds=24 * 3600) as running:
        settings = {
            "UPLIFT_DESTINATION": "sekmet",
            "UPLIFT_DESTINATION_PRESET": "hapi",
            "UPLIFT_DESTINATION_R4": running.base,
            "UPLIFT_DESTINATION_LOGIN": "client_credentials",
            "UPLIFT_DESTINATION_TOKEN_URL": running.token_url,
            "UPLIFT_DESTINATION_CLIENT_ID": CLIENT_ID,
            "UPLIFT_DESTINATION_CLIENT_SECRET": SECRET,
            "UPLIFT_SECOND_OPINION": "0.05",
        }
        server = Server(
            name="sekmet",
            base=running.base,
            pid=running.pid,
            authorization=running.headers()["Authorization"],
        )
        warm_up(server, *_WARM_UP)
        with open_testbed(
            folder / "uplift", Upstream(running.base), processes=("beat",), settings=settings
        ) as testbed:
            return measure(testbed, server, plan, _COUNTS)
