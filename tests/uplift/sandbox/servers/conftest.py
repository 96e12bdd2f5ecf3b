"""A sandbox that is like HAPI."""

from collections.abc import Iterator

import httpx
import pytest

from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxConfig(like="hapi")) as server:
        yield server


@pytest.fixture
def r4(sandbox: SandboxServer) -> Iterator[httpx.Client]:
    """A client at the R4 base of an empty sandbox."""
    sandbox.reset()
    with httpx.Client(base_url=f"{sandbox.url}/r4", trust_env=False) as client:
        yield client
