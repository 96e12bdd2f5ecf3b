"""The sandbox answers as the table says. `make test-hapi` holds the real server to the same."""

import httpx
import pytest

from tests.uplift.sandbox.servers.exchanges import STORIES, differences
from uplift.sandbox.testing import SandboxServer


@pytest.mark.parametrize("version", ["r4", "dstu2"])
@pytest.mark.parametrize("title", STORIES)
def test_the_sandbox_answers_like_hapi(sandbox: SandboxServer, version: str, title: str) -> None:
    with httpx.Client(base_url=f"{sandbox.url}/{version}", trust_env=False) as client:
        assert differences(client, version, title, STORIES[title]) == []
