"""One HAPI after the other: each takes about 1 GB."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.hapi.server import run_hapi

pytest.register_assert_rewrite("tests.hapi.story", "tests.held")


@dataclass(frozen=True)
class Hapi:
    """A running server of one FHIR version: `r4` or `dstu2`."""

    version: str
    base: str


@pytest.fixture(scope="package", params=["r4", "dstu2"])
def hapi(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hapi]:
    version: str = request.param
    with run_hapi(version, tmp_path_factory.mktemp("hapi") / f"{version}.log") as base:
        yield Hapi(version, base)
