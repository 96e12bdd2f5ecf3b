"""`make demo` and `uplift up` from a clone, on machines as people have them."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
USUAL_PORTS = (8080, 5555, 8090, 9801, 9802, 9803, 9804, 5432, 6379)
# Debian's own, which every account may run; ours may be in a closed folder such as root's home.
PYTHON = "/usr/bin/python3"
DEBIAN_REDIS = Path("/usr/bin/redis-server")
DEBIAN_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
UNPRIVILEGED = "nobody"

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="not Linux: accounts and modes differ"),
    pytest.mark.skipif(os.geteuid() != 0, reason="not root: the tests run as several accounts"),
    pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"Python {PYTHON} is not here"),
]


class Clone:
    """A clone of this repository with its environment, and who runs it under which umask."""

    def __init__(self, folder: Path, *, account: str = "root", umask: int = 0o022) -> None:
        self.folder = folder
        self.account = account
        self.umask = umask

    @property
    def environment(self) -> dict[str, str]:
        """As a login of that account would have it."""
        home = pwd.getpwnam(self.account).pw_dir
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": home if Path(home).is_dir() else str(self.folder),
            "LANG": "C.UTF-8",
        }

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Run a command in the clone, as that account."""
        entry = pwd.getpwnam(self.account)
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=self.umask,
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
        )

    def make(self, target: str, **environment: str) -> tuple[int, str]:
        """`make TARGET`: its exit code and what it says."""
        with self.start("make", target, f"PYTHON={PYTHON}", **environment) as process:
            said, _ = process.communicate(timeout=500)
        return process.returncode, said


def clone_to(folder: Path) -> None:
    """What is committed, and what is changed since: this is what is tested."""
    done = subprocess.run(
        ["/usr/bin/git", "clone", "--quiet", "--local", ROOT, folder],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    changed = subprocess.run(
        ["/usr/bin/git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, changed.stdout.split("\0")):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            shutil.copy2(source, target, follow_symlinks=False)
        else:
            target.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def machine() -> Iterator[Path]:
    """A folder that every account can enter. pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="uplift-wide-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def ready(machine: Path) -> Path:
    """A clone whose environment `make` has set up. The others copy it: that takes seconds."""
    folder = machine / "ready"
    clone_to(folder)
    # `make help` needs nothing; the environment comes with any other target.
    code, said = Clone(folder).make("up", UPLIFT_DATA_DIR="/dev/null/nowhere")
    assert code != 0, said
    assert "The folder /dev/null/nowhere cannot be made" in said, said
    return folder


def copy_of(ready: Path, folder: Path, *, account: str = "root", umask: int = 0o022) -> Clone:
    """The same clone elsewhere, in a folder of that account, with the modes of that umask."""
    own_modes = umask != 0o022
    shutil.copytree(
        ready, folder, symlinks=True, copy_function=shutil.copy2 if own_modes else link_or_copy
    )
    environment = next(each for each in folder.glob(".venv*") if (each / "bin/uplift").exists())
    python = str(environment / "bin/python")
    pip = [python, "-m", "pip", "install", "--root-user-action=ignore"]
    done = subprocess.run(
        [*pip, "--quiet", "--no-deps", "--no-build-isolation", "--editable", "."],
        cwd=folder, capture_output=True, text=True, umask=umask,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for mark in environment.glob(".ready*"):
        mark.touch()
    if own_modes:
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~umask)
    entry = pwd.getpwnam(account)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return Clone(folder, account=account, umask=umask)


def link_or_copy(source: str, target: str) -> None:
    """A hard link takes no time and no space; another file system needs a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def assert_demo_works(clone: Clone) -> str:
    """Everything arrives. Returns what it says."""
    code, said = clone.make("demo")
    assert code == 0, said
    assert "All is correct" in said
    return said


def test_in_root_s_own_home_the_demo_runs_postgresql_as_nobody_and_says_so(ready: Path) -> None:
    with tempfile.TemporaryDirectory(dir=pwd.getpwuid(0).pw_dir) as closed:
        said = assert_demo_works(copy_of(ready, Path(closed) / "uplift"))
    assert "under the account nobody" in said


def test_with_umask_077(ready: Path, machine: Path) -> None:
    assert_demo_works(copy_of(ready, machine / "umask", umask=0o077))


def test_as_an_ordinary_user_in_a_path_with_a_space_and_an_accent(
    ready: Path, machine: Path
) -> None:
    folder = machine / "Zoë's files" / "uplift"
    folder.parent.mkdir(mode=0o755)
    said = assert_demo_works(copy_of(ready, folder, account=UNPRIVILEGED))
    assert "under the account" not in said
    assert (folder / ".uplift" / "demo" / "apple-health-export.zip").exists()


def test_as_root_in_a_path_with_a_space_and_an_accent(ready: Path, machine: Path) -> None:
    assert_demo_works(copy_of(ready, machine / "Zoë's uplift"))


def test_with_the_usual_ports_taken(ready: Path) -> None:
    with ExitStack() as taken:
        for port in USUAL_PORTS:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if probe.connect_ex(("127.0.0.1", port)) != 0:
                    taken.enter_context(socket.create_server(("127.0.0.1", port)))
        said = assert_demo_works(Clone(ready))
    assert "http://127.0.0.1:8080/" not in said


def test_without_python3_venv_one_sentence_says_what_to_install(ready: Path, machine: Path) -> None:
    clone = Clone(machine / "without-venv")
    clone_to(clone.folder)
    missing = machine / "missing"
    missing.mkdir()
    (missing / "ensurepip.py").write_text("raise ImportError\n")
    code, said = clone.make("demo", PYTHONPATH=str(missing))
    assert code != 0
    assert "apt-get install python3-venv" in said
    assert len(said.strip().splitlines()) <= 2, said  # the other line is make's own


@contextmanager
def debian_servers() -> Iterator[None]:
    """Debian's PostgreSQL and Redis on their usual ports, as after `apt-get install`."""
    with ExitStack() as running:
        for name, port in (("postgresql", 5432), ("redis-server", 6379)):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    continue
            service = ["/usr/sbin/service", name]
            running.callback(subprocess.run, [*service, "stop"], capture_output=True)
            subprocess.run([*service, "start"], capture_output=True)
            deadline = time.monotonic() + 60
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < deadline, f"{name} does not start"
                time.sleep(0.05)
        yield


@pytest.mark.skipif(
    not (DEBIAN_REDIS.exists() and DEBIAN_POSTGRES),
    reason="Debian's postgresql and redis-server are not installed",
)
def test_with_debian_s_postgresql_and_redis_installed_and_running(ready: Path) -> None:
    with debian_servers():
        assert_demo_works(Clone(ready))


def test_as_root_up_runs_postgresql_under_an_account_of_its_own(ready: Path, machine: Path) -> None:
    data_dir = machine / "data"
    with Clone(ready).start("make", "up", f"PYTHON={PYTHON}", UPLIFT_DATA_DIR=str(data_dir)) as up:
        try:
            assert up.stdout is not None
            said = ""
            while "\nSettings " not in said:  # the last of the addresses
                line = up.stdout.readline()
                assert line, textwrap.indent(said, "  ")
                said += line
            assert "under the account uplift" in said
            pid = int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
            assert psutil.Process(pid).username() == "uplift"
            assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700
            assert (data_dir / "master_keys").stat().st_mode & 0o777 == 0o600
        finally:
            for child in psutil.Process(up.pid).children():
                child.send_signal(signal.SIGTERM)
            up.stdout.read() if up.stdout is not None else None
            up.wait(60)
