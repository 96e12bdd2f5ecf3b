"""A whole run that is killed leaves nothing behind, with and without its guard."""

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.ledger_copies import LedgerCopies
from uplift.cli.local.needs import NEEDS, SECRETS

RUN = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from uplift.cli.local.system import System
    with System(Path(sys.argv[1]), processes=("worker", "beat"), any_port=True) as system:
        print("up", flush=True)
        time.sleep(300)
    """
)


@contextmanager
def run(folder: Path) -> Iterator[tuple[psutil.Process, list[psutil.Process]]]:
    """A run that is up, and its children: servers, sandbox, worker, beat, and the guard."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            parent = psutil.Process(process.pid)
            yield parent, parent.children(recursive=True)
        finally:
            process.kill()


def named(children: list[psutil.Process], name: str) -> psutil.Process:
    until = time.monotonic() + 10
    while True:
        found = [each for each in children if f"uplift {name}" in " ".join(each.cmdline())]
        if len(found) == 1:
            return found[0]
        # One that was started a moment ago has no command line of its own yet.
        assert time.monotonic() < until, [each.cmdline() for each in children]
        time.sleep(0.05)


def assert_gone(children: list[psutil.Process], seconds: float) -> None:
    _, left = psutil.wait_procs(children, timeout=seconds)
    assert [each for each in left if each.status() != psutil.STATUS_ZOMBIE] == []


def test_what_a_killed_run_started_ends_with_it_or_at_the_next_start(
    tmp_path: Path, ledger_copies: LedgerCopies
) -> None:
    folder = ledger_copies.put(tmp_path / "data")
    with run(folder) as (parent, children):
        assert len(children) >= 6
        for name in ("worker", "beat", "sandbox"):
            given = named(children, name).environ()
            assert {each for each in SECRETS if given.get(each)} == NEEDS[name], name
        (guard,) = (each for each in children if "guard.py" in " ".join(each.cmdline()))
        guard.kill()
        parent.kill()

    with run(folder) as (parent, second):
        assert_gone(children, 0)
        assert len(second) >= 6
        parent.kill()
        assert_gone(second, 30)
