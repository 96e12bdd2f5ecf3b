"""The embedded servers beside Debian's own packages of the same programs."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.wide.programs import ROOT


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server here")
def test_the_embedded_servers_work_with_debian_s_redis_on_the_path() -> None:
    words = ["-m", "pytest", "tests/uplift/cli/local/test_embedded.py", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
