"""docs/api.md: each request can be pasted as it is printed, into other shells too."""

import shutil
from pathlib import Path

import pytest

from tests.system.conftest import Running
from tests.system.pages import SHELLS, check_what_the_api_page_does


@pytest.mark.parametrize("shell", SHELLS)
def test_every_request_of_the_page_works(shell: str, running: Running, tmp_path: Path) -> None:
    for program in (shell, "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    check_what_the_api_page_does(SHELLS[shell], running, tmp_path)
