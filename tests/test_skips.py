"""A test that is skipped without an allowed reason fails the run in continuous integration."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import ALLOWED, is_allowed, read_patterns

_TESTS = """
import pytest

@pytest.mark.skipif(True, reason="not root: it becomes another user")
def test_by_mark():
    raise AssertionError

def test_by_call():
    pytest.skip("Python 3.99 is not here")

@pytest.mark.xfail(reason="known")
def test_known():
    raise AssertionError

def test_runs():
    pass
"""


@pytest.mark.parametrize(
    "reason",
    [
        "/home/me/shared/fhir/r4 is not there",
        "not Linux: reads /proc",
        "not root: becomes another user",
        "no systemd here",
        "Python 3.13 is not here",
    ],
)
def test_what_no_package_brings_may_be_missing(reason: str) -> None:
    assert is_allowed(reason, read_patterns(ALLOWED))


@pytest.mark.parametrize(
    "reason", ["", "no docker compose here", "no nginx here", "could not import 'java'"]
)
def test_what_a_package_brings_may_not_be_missing(reason: str) -> None:
    assert not is_allowed(reason, read_patterns(ALLOWED))


def _pytest(tmp_path: Path, tests: str, *options: str) -> tuple[int, str]:
    (tmp_path / "test_some.py").write_text(tests)
    words = ["-m", "pytest", "-p", "tests.skips", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *words, *options, str(tmp_path)],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=ALLOWED.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_an_allowed_skip_stays_a_skip(tmp_path: Path) -> None:
    code, told = _pytest(tmp_path, _TESTS, "--strict-skips")
    assert "1 passed, 2 skipped, 1 xfailed" in told
    assert code == 0


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param(_TESTS.replace("not root: it", "it"), id="by a mark"),
        pytest.param(_TESTS.replace("Python 3.99", "nginx"), id="by a call"),
        pytest.param(f"{_TESTS}\npytest.importorskip('nginx')", id="of a whole file"),
    ],
)
def test_another_skip_fails_the_run(tmp_path: Path, tests: str) -> None:
    code, told = _pytest(tmp_path, tests, "--strict-skips")
    assert "Skipped, for a reason that is not in .ci/allowed-skips" in told
    assert code != 0


def test_without_the_option_a_skip_is_a_skip(tmp_path: Path) -> None:
    code, told = _pytest(tmp_path, _TESTS.replace("not root: it", "it"))
    assert "1 passed, 2 skipped, 1 xfailed" in told
    assert code == 0
