"""docs/api.md: each request can be pasted as it is printed."""

import shutil
from pathlib import Path

import pytest

from tests.system.conftest import Running
from tests.system.pages import SHELLS, check_what_the_api_page_does, run_page, shell_blocks

needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None, reason="bare machine: curl is not here"
)


@needs_curl
def test_every_request_of_the_page_works_in_bash(running: Running, tmp_path: Path) -> None:
    check_what_the_api_page_does(SHELLS["bash"], running, tmp_path)


@needs_curl
def test_a_request_that_gets_a_problem_is_noticed(running: Running, tmp_path: Path) -> None:
    blocks = ["echo before", 'curl -sS "$UPLIFT_API_URL/v1/uploads"', "echo after"]
    with pytest.raises(AssertionError, match="invalid_token"):
        run_page(SHELLS["bash"], blocks, running, tmp_path)


@pytest.mark.parametrize(
    "page",
    [
        "```\ncurl http://127.0.0.1\n```\n",
        "```bash\ncurl http://127.0.0.1\n```\n",
        "~~~ console\n$ curl http://127.0.0.1\n~~~\n",
        "* an item\n  ```json\n  curl http://127.0.0.1\n  ```\n",
        "    curl http://127.0.0.1\n",
        "```sh\ncurl http://127.0.0.1\n",
    ],
)
def test_a_request_that_no_test_runs_is_noticed(page: str) -> None:
    with pytest.raises(ValueError, match=r"curl|block"):
        shell_blocks(page)
