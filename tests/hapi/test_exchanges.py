"""The real server answers as the table says to which the sandbox is held."""

import httpx
import pytest

from tests.hapi.conftest import Hapi
from tests.uplift.sandbox.servers.exchanges import STORIES, differences

pytestmark = pytest.mark.timeout(900)  # seconds: the first one waits for the build


@pytest.mark.parametrize("title", STORIES)
def test_hapi_answers_as_the_sandbox_does(hapi: Hapi, title: str) -> None:
    with httpx.Client(base_url=hapi.base, trust_env=False, timeout=60) as client:
        assert differences(client, hapi.version, title, STORIES[title]) == []
