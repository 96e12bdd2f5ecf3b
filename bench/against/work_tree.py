"""A commit as a work tree of its own, with an environment from its own lock.

Both are kept in `.uplift/bench/COMMIT`, so the second run against a commit starts at once.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.against.layouts import Layout, layout_of

_REPOSITORY = Path(__file__).parents[2]
_KEPT = _REPOSITORY / ".uplift" / "bench"


@dataclass(frozen=True, slots=True)
class WorkTree:
    """A tree: its name, the folder with the programs of its environment, its layout."""

    name: str
    programs: Path
    layout: Layout

    def command(self, command: tuple[str, ...]) -> list[str]:
        """A command of the layout, run by this tree's own program."""
        return [str(self.programs / command[0]), *command[1:]]


def this_tree() -> WorkTree:
    """The tree and the environment that run this benchmark."""
    return WorkTree("this tree", Path(sys.executable).parent, layout_of(_REPOSITORY))


def work_tree(commit: str, say: Callable[[str], None]) -> WorkTree:
    """The work tree of a commit, set up unless it is there.

    Raises ValueError for an unknown commit or layout, CalledProcessError if the setup fails.
    """
    full = _full_name(commit)
    folder = _KEPT / full
    tree, environment, ready = folder / "tree", folder / "venv", folder / "ready"
    if not ready.exists():
        say(f"Setting up commit {full[:7]} in {folder} (once; about a minute)")
        shutil.rmtree(folder, ignore_errors=True)
        # Forced: git may still list a work tree that was deleted there.
        git = ("git", "-C", _REPOSITORY, "worktree", "add", "--quiet", "--force", "--detach")
        _run(*git, tree, full)
        _run(sys.executable, "-m", "venv", environment)
        pip = (environment / "bin" / "pip", "install", "-q", "--disable-pip-version-check")
        _run(*pip, "--require-hashes", "-r", tree / "requirements-dev.lock")
        _run(*pip, "--no-deps", "--no-build-isolation", "-e", tree)
        ready.touch()
    return WorkTree(full[:7], environment / "bin", layout_of(tree))


def _full_name(commit: str) -> str:
    found = subprocess.run(
        ["git", "-C", _REPOSITORY, "rev-parse", "--verify", "--quiet", commit + "^{commit}"],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
    )
    if found.returncode:
        raise ValueError(f"There is no commit {commit} in {_REPOSITORY}.")
    return found.stdout.strip()


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
