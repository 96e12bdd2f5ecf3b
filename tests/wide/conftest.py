"""The whole system in real processes, for strangers' clients."""

from collections.abc import Iterator

import pytest

from tests.system.conftest import Running, run_system


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The system of one file of tests."""
    with run_system(tmp_path_factory.mktemp("system")) as system:
        yield system
