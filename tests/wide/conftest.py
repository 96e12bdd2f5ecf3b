"""The whole system in real processes, for strangers' clients."""

from collections.abc import Iterator

import pytest

from tests.system.conftest import BRISK, Running
from uplift.cli.local.system import System


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The system, all processes of it."""
    data_dir = tmp_path_factory.mktemp("system")
    with System(data_dir, BRISK, any_port=True) as system:
        opened = Running(system, data_dir)
        yield opened
        opened.close()
