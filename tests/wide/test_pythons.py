"""Uplift works on each Python that it promises, with the same pins."""

import os
import subprocess

import pytest

from tests.wide.programs import PYTHONS, ROOT, find_python, is_this_python

# What differs between versions of Python first: syntax, memory, loops, types. It takes a minute.
_SUBSET = (
    "tests/uplift/fhir/test_primitives.py",
    "tests/uplift/intake/test_ndjson.py",
    "tests/uplift/tokens/test_single_flight.py",
    "tests/uplift/test_settings.py",
    "tests/worker/test_app.py",
)


@pytest.mark.timeout(900)  # it installs everything once
@pytest.mark.parametrize("version", [each for each in PYTHONS if not is_this_python(each)])
def test_make_test_runs_on_another_python(version: str) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"Python {version} is not here")
    # Not what our own `make` and pytest handed down.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS", "PYTEST_"))
    }
    done = subprocess.run(
        ["make", "test", f"PYTHON={python}", f"ARGS={' '.join(_SUBSET)} -p no:cacheprovider"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert (ROOT / f".venv-{version}" / "bin" / "uplift").is_file()
