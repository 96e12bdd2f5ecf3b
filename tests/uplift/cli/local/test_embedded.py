"""Real servers, killed for real."""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.ledger_copies import LedgerCopies
from uplift.cli.local.child_process import Account, ChildProcess
from uplift.cli.local.embedded import (
    EmbeddedPostgres,
    EmbeddedRedis,
    FolderInUse,
    ServerFailed,
    account,
    programs,
)
from uplift.cli.local.embedded.redis import find_program
from uplift.errors import ConfigurationError

AS_ROOT = os.geteuid() == 0
# A SIGKILL leaves the operating system's cache alone, so these tests lose nothing without fsync.
FAST = {"fsync": "off"}

only_linux_root = pytest.mark.skipif(
    not AS_ROOT or sys.platform != "linux", reason="not root: it becomes another user"
)

_NOBODY = pwd.getpwnam("nobody")
NOBODY = Account(_NOBODY.pw_uid, _NOBODY.pw_gid, name="nobody")

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres") / "data", settings=FAST) as server:
        yield server


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "data") as server:
        yield server


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def skip_if_the_environment_is_closed_to_others() -> None:
    installed = Path(psycopg.__file__).parent
    tried = subprocess.run(["/bin/ls", str(installed)], user="nobody", capture_output=True)
    if tried.returncode != 0:
        pytest.skip(f"user nobody cannot enter {installed}")


def listening_addresses(port: int) -> set[str]:
    """The local addresses on which any process listens at this port, as Linux writes them."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, number = line.split()[1].split(":")
            if int(number, 16) == port and line.split()[3] == "0A":
                found.add(address)
    return found


def test_postgres_serves_its_own_database(postgres: EmbeddedPostgres) -> None:
    assert postgres.url.startswith("postgresql://")
    [(version, database, encoding)] = query(
        postgres.url,
        "SELECT current_setting('server_version_num')::int, current_database(),"
        " current_setting('server_encoding')",
    )
    assert isinstance(version, int)
    assert version >= 180000
    assert (database, encoding) == ("uplift", "UTF8")


def test_postgres_refuses_another_password(postgres: EmbeddedPostgres) -> None:
    wrong = f"postgresql://uplift:wrong@127.0.0.1:{postgres.port}/uplift"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        query(wrong, "SELECT 1")


@pytest.mark.skipif(sys.platform != "linux", reason="not Linux: it reads /proc/net/tcp")
def test_the_servers_listen_on_loopback_only(
    postgres: EmbeddedPostgres, valkey: EmbeddedRedis
) -> None:
    assert listening_addresses(postgres.port) == {"0100007F"}  # 127.0.0.1, little-endian
    assert listening_addresses(valkey.port) == {"0100007F"}


def test_what_was_committed_survives_a_kill_of_postgres(postgres: EmbeddedPostgres) -> None:
    query(postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    url, pid = postgres.url, postgres.pid
    postgres.kill()
    assert postgres.pid is None
    with pytest.raises(ServerFailed, match="PostgreSQL has stopped"):
        postgres.check()

    postgres.restart()

    postgres.check()
    assert postgres.url == url
    assert postgres.pid != pid
    assert query(url, "SELECT answer FROM kept") == [(42,)]


def test_postgres_waits_for_what_a_kill_left_of_its_last_life(postgres: EmbeddedPostgres) -> None:
    with closing(psycopg.connect(postgres.url)) as client_at_work:
        backend = client_at_work.info.backend_pid
        os.kill(backend, signal.SIGSTOP)  # so that it does not notice yet
        thaw = threading.Timer(1.0, os.kill, (backend, signal.SIGCONT))
        thaw.start()
        try:
            postgres.kill()
            postgres.start()
        finally:
            thaw.join()

        assert query(postgres.url, "SELECT 1") == [(1,)]


def test_a_stale_pid_file_that_names_a_living_process_is_no_obstacle(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    account = None
    if AS_ROOT:  # PostgreSQL only minds processes of its own user
        nobody = pwd.getpwnam("nobody")
        account = Account(nobody.pw_uid, nobody.pw_gid)
    stranger = ChildProcess(
        "stranger", ["sleep", "60"], log=tmp_path / "stranger.log", account=account
    )
    stranger.start()
    try:
        postgres.kill()
        pid_file = postgres.folder / "postmaster.pid"
        lines = pid_file.read_text().splitlines(keepends=True)
        pid_file.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        time.sleep(0.2)  # until the stranger runs as its account

        postgres.start()

        assert stranger.running
        assert query(postgres.url, "SELECT 1") == [(1,)]
    finally:
        stranger.kill()


def test_an_empty_pid_file_is_no_obstacle(postgres: EmbeddedPostgres) -> None:
    postgres.kill()
    (postgres.folder / "postmaster.pid").write_text("")

    postgres.start()

    assert query(postgres.url, "SELECT 1") == [(1,)]


def test_the_log_of_postgres_names_errors_but_not_values(postgres: EmbeddedPostgres) -> None:
    query(postgres.url, "CREATE TABLE people (name text PRIMARY KEY)")
    query(postgres.url, "INSERT INTO people VALUES ('Canary Jones')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        query(postgres.url, "INSERT INTO people VALUES ('Canary Jones')")
    log = (postgres.data_dir / "logs" / "postgres.log").read_text()

    assert "duplicate key value violates unique constraint" in log
    assert "Canary" not in log


def test_data_passwords_and_logs_are_private(
    postgres: EmbeddedPostgres, valkey: EmbeddedRedis
) -> None:
    # Root's server runs under another account, which must enter the folder.
    assert mode(postgres.data_dir) == (0o711 if AS_ROOT else 0o700)
    assert mode(postgres.folder) == 0o700
    assert mode(postgres.data_dir / "postgres.password") == 0o600
    assert mode(postgres.data_dir / "logs" / "postgres.log") == 0o600
    assert mode(valkey.data_dir) == 0o700
    assert mode(valkey.folder) == 0o700
    assert mode(valkey.folder / "redis.conf") == 0o600
    assert mode(valkey.data_dir / "logs" / "redis.log") == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="not Linux: it reads /proc")
def test_the_servers_get_no_keys_of_ours_and_show_no_password(
    tmp_path: Path, ledger_copies: LedgerCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPLIFT_MASTER_KEYS", "canary")
    with (
        EmbeddedPostgres(ledger_copies.put(tmp_path / "data"), settings=FAST) as postgres,
        EmbeddedRedis(tmp_path / "data") as valkey,
    ):
        for server in (postgres, valkey):
            assert b"canary" not in Path(f"/proc/{server.pid}/environ").read_bytes()
            password = server.url.split("@")[0].rsplit(":", 1)[1]
            assert password not in Path(f"/proc/{server.pid}/cmdline").read_text()


def test_postgres_stops_and_starts_again_with_clients_connected(
    tmp_path: Path, ledger_copies: LedgerCopies
) -> None:
    server = EmbeddedPostgres(ledger_copies.put(tmp_path / "data"), settings=FAST)
    with server:
        url = server.url
        with closing(psycopg.connect(url)) as idle:
            idle.execute("SELECT 1")
            server.stop()
        assert not (server.folder / "postmaster.pid").exists()
        log = (server.data_dir / "logs" / "postgres.log").read_text()
        assert "database system is shut down" in log

        server.start()
        assert query(url, "SELECT 1") == [(1,)]


def test_a_second_server_on_the_same_folder_is_refused(
    postgres: EmbeddedPostgres, valkey: EmbeddedRedis
) -> None:
    for second in (EmbeddedPostgres(postgres.data_dir), EmbeddedRedis(valkey.data_dir)):
        with pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}"):
            second.start()
    assert query(postgres.url, "SELECT 1") == [(1,)]
    assert client(valkey).ping()


def test_missing_password_file_is_explained(tmp_path: Path, ledger_copies: LedgerCopies) -> None:
    server = EmbeddedPostgres(ledger_copies.put(tmp_path / "data"), settings=FAST)
    (server.data_dir / "postgres.password").unlink()

    with pytest.raises(ConfigurationError, match=r"postgres\.password is missing"):
        server.start()


def test_a_setup_that_was_cut_short_starts_again(tmp_path: Path) -> None:
    unfinished = tmp_path / "data" / "postgres.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")

    with EmbeddedPostgres(tmp_path / "data", settings=FAST) as server:
        assert query(server.url, "SELECT 1") == [(1,)]


def test_a_taken_port_that_was_asked_for_is_an_error_with_the_servers_words(
    tmp_path: Path, ledger_copies: LedgerCopies
) -> None:
    ledger_copies.put(tmp_path / "data")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for server in (
            EmbeddedPostgres(tmp_path / "data", port=port, settings=FAST),
            EmbeddedRedis(tmp_path / "data", port=port),
        ):
            with pytest.raises(ServerFailed, match="Address already in use"):
                server.start()
            assert server.pid is None

    # The failed start unlocked the folder.
    with EmbeddedRedis(tmp_path / "data") as server:
        assert client(server).ping()


def test_redis_keeps_what_it_has_and_never_evicts(valkey: EmbeddedRedis) -> None:
    with client(valkey) as connection:
        settings = connection.config_get("append*", "maxmemory-policy")
    assert isinstance(settings, dict)
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"


def test_redis_refuses_a_client_without_its_password(valkey: EmbeddedRedis) -> None:
    with (
        redis.Redis(host="127.0.0.1", port=valkey.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_what_redis_holds_survives_a_kill(valkey: EmbeddedRedis) -> None:
    url, pid = valkey.url, valkey.pid
    with client(valkey) as connection:
        connection.set("queue", "message")
        # Written to the file before the answer, synchronised each second: a kill loses nothing.
        valkey.kill()
        assert valkey.pid is None
        valkey.restart()

        assert valkey.url == url
        assert valkey.pid not in (None, pid)
        assert connection.get("queue") == "message"


def test_redis_data_is_there_in_the_next_run(tmp_path: Path) -> None:
    folder = tmp_path / 'a folder with "quotes" and spaces'
    for expected in (None, "message"):
        with EmbeddedRedis(folder) as server, client(server) as connection:
            assert connection.get("queue") == expected
            connection.set("queue", "message")


@pytest.mark.skipif(sys.platform != "linux", reason="not Linux: it finds a program in /proc")
def test_a_redis_server_on_the_path_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By its name: Debian's redis-server is a link to a program that acts by its name.
    own = find_program()
    programs = tmp_path / "bin"
    programs.mkdir()
    script = programs / "redis-server"
    script.write_text(f'#!/bin/sh\necho "from the path"\nexec {own} "$@"\n')
    script.chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    with EmbeddedRedis(tmp_path / "other") as server, client(server) as connection:
        assert connection.ping()
        assert "from the path" in (server.data_dir / "logs" / "redis.log").read_text()


# A run of its own, to be killed from outside.
RUN = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis
    data_dir = Path(sys.argv[1])
    with EmbeddedPostgres(data_dir, settings={"fsync": "off"}) as pg, EmbeddedRedis(data_dir) as r:
        print(pg.url, r.url, flush=True)
        time.sleep(60)
    """
)


def test_a_killed_run_can_be_followed_by_another_on_the_same_folder(
    tmp_path: Path, ledger_copies: LedgerCopies
) -> None:
    data_dir = ledger_copies.put(tmp_path / "data")
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(data_dir)], stdout=subprocess.PIPE, text=True
    ) as first:
        try:
            assert first.stdout is not None
            postgres_url, redis_url = first.stdout.readline().split()
            query(postgres_url, "CREATE TABLE kept AS SELECT 42 AS answer")
            with redis.Redis.from_url(redis_url) as connection:
                connection.set("queue", "message")
        finally:
            first.kill()

    with (
        EmbeddedPostgres(data_dir, settings=FAST) as postgres,
        EmbeddedRedis(data_dir) as valkey,
        client(valkey) as connection,
    ):
        assert query(postgres.url, "SELECT answer FROM kept") == [(42,)]
        assert connection.get("queue") == "message"


@only_linux_root
def test_an_ordinary_user_can_do_the_same(tmp_path: Path) -> None:
    skip_if_the_environment_is_closed_to_others()
    # As root first, which imports all that is needed: the interpreter may lie in a folder that is
    # closed to others, such as root's home.
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        import psycopg, redis
        from uplift.cli.local.embedded import EmbeddedPostgres, EmbeddedRedis

        def run(data_dir):
            fast = {"fsync": "off"}
            with (
                EmbeddedPostgres(data_dir, settings=fast) as postgres,
                EmbeddedRedis(data_dir) as valkey,
            ):
                for server in postgres, valkey:
                    server.kill()
                    server.restart()
                with psycopg.connect(postgres.url) as connection:
                    connection.execute("SELECT 1")
                with redis.Redis.from_url(valkey.url) as connection:
                    connection.ping()
                return os.stat(postgres.folder).st_uid

        uid, gid, as_root, as_nobody = sys.argv[1:]
        run(Path(as_root))
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
        print(run(Path(as_nobody)))
        """
    )
    nobody = pwd.getpwnam("nobody")
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        ids = [str(nobody.pw_uid), str(nobody.pw_gid)]
        folders = [str(tmp_path / "data"), str(Path(folder) / "data")]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, *ids, *folders],
            check=False,
            capture_output=True,
            text=True,
        )

    assert done.stderr == ""
    assert done.stdout.strip() == str(nobody.pw_uid)


def effective_capabilities(server: EmbeddedPostgres) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == [str(pwd.getpwnam("nobody").pw_uid)] * 4
    return int(facts["CapEff"], 16)


@only_linux_root
def test_the_account_of_postgres_cannot_read_the_superuser_s_password(
    postgres: EmbeddedPostgres,
) -> None:
    # Others may have the same account: `nobody` is many services'.
    password = (postgres.data_dir / "postgres.password").stat()
    assert (password.st_uid, stat.S_IMODE(password.st_mode)) == (0, 0o600)


@only_linux_root
def test_root_starts_postgres_as_nobody(tmp_path: Path) -> None:
    skip_if_the_environment_is_closed_to_others()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "data", settings=FAST) as server:
            assert effective_capabilities(server) == 0


@only_linux_root
def test_in_a_closed_folder_nobody_may_pass_but_permissions_stay(
    tmp_path: Path, ledger_copies: LedgerCopies
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres(ledger_copies.put(closed / "data"), settings=FAST) as server:
        # CAP_DAC_READ_SEARCH or CAP_DAC_OVERRIDE of linux/capability.h, and only one of them
        assert effective_capabilities(server) in (1 << 2, 1 << 1)
        assert query(server.url, "SELECT 1") == [(1,)]

    assert mode(closed) == 0o700


@only_linux_root
def test_programs_that_the_account_cannot_run_are_copied_with_modes_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = programs.find_programs(None).parent
    packages = installed.parents[1]
    closed = tmp_path / "closed"
    previous = os.umask(0o077)  # as where Uplift was installed
    try:
        for folder in (installed, packages / f"{installed.parent.name}.libs"):
            shutil.copytree(folder, closed / folder.relative_to(packages), symlinks=True)
        for path in closed.rglob("*"):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o700)
        with tempfile.TemporaryDirectory() as home:
            Path(home).chmod(0o711)
            monkeypatch.setattr(programs, "HOME", Path(home) / "uplift")
            found = programs.find_programs(NOBODY, closed / installed.relative_to(packages))
            assert found.is_relative_to(home)
            done = subprocess.run(
                [found / "initdb", "--version"], user=NOBODY.uid, group=NOBODY.gid, check=True
            )
            assert done.returncode == 0
    finally:
        os.umask(previous)


@only_linux_root
def test_an_account_that_does_not_exist_is_an_error_with_the_way_out() -> None:
    with pytest.raises(ConfigurationError, match="as the account no-such-account: it does not"):
        account.find_account("no-such-account")


@only_linux_root
def test_without_useradd_root_reads_why_postgresql_cannot_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(account, "OWN", "uplift-absent")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigurationError, match="the program useradd is not installed"):
        account.find_account("uplift-absent")
