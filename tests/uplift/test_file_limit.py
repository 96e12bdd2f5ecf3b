"""How many files a process may open."""

import subprocess
import sys

from uplift.file_limit import files_of_api, files_of_worker
from uplift.settings import Settings

_SHOWN = """
import resource
from uplift.errors import ConfigurationError
from uplift.file_limit import raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
try:
    raise_file_limit({needed})
except ConfigurationError as error:
    print("refused:", error)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def _shown(*, needed: int, hard: int) -> str:
    """What a process says that begins with 64 files and may have `hard`."""
    done = subprocess.run(
        [sys.executable, "-c", _SHOWN.format(needed=needed, hard=hard)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_a_process_raises_its_limit_at_its_start() -> None:
    assert int(_shown(needed=500, hard=1_000)) >= 500


def test_a_process_that_may_not_open_enough_does_not_start() -> None:
    assert "refused:" in _shown(needed=2_000, hard=1_000)


def test_each_connection_has_its_file() -> None:
    settings = Settings()
    assert files_of_api(settings) > settings.api_max_connections
    assert files_of_worker(settings) > settings.max_in_flight
