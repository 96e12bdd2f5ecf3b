"""The address of Redis, and the two kinds of client that connect to it: redis-py and Celery."""

import importlib
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
from celery import Celery
from celery.loaders.app import AppLoader
from redis.asyncio.connection import parse_url
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from uplift.errors import ConfigurationError
from uplift.settings import Settings

# A Redis that is away must show within seconds: requests and leased uploads wait for it meanwhile.
_TIMEOUTS = {"socket_connect_timeout": 1.0, "socket_timeout": 2.0}


def redis_url(settings: Settings) -> str:
    """The address of Redis. Raises ConfigurationError if none is set, or if it is malformed."""
    if settings.redis_url is None:
        raise ConfigurationError(
            "UPLIFT_REDIS_URL is not set. `uplift up` starts an embedded server;"
            " every other command needs the address of one."
        )
    url = settings.redis_url.get_secret_value()
    if not _is_address(url):
        # The message leaves the address out: it may hold a password.
        raise ConfigurationError(
            "UPLIFT_REDIS_URL is not an address. Write redis://user:password@host:6379/0 or"
            " rediss://…; in a password, write % as %25, / as %2F and @ as %40."
        )
    return url


def _is_address(url: str) -> bool:
    try:
        parse_url(url)
        # redis-py ignores a database that is not a number; Celery fails on it when it connects.
        return (urlsplit(url).path.strip("/") or "0").isdecimal() or url.startswith("unix:")
    except ValueError:
        return False


def open_redis(settings: Settings) -> redis.asyncio.Redis:
    """A client that fails within seconds. Raises ConfigurationError for a wrong address."""
    # A restart of Redis breaks the connections of the pool: one more try gets a new one.
    return redis.asyncio.from_url(redis_url(settings), **_TIMEOUTS, retry=Retry(NoBackoff(), 1))


# What Redis answers to every write while it is in such a state, and what each means.
_REFUSALS: tuple[tuple[type[RedisError], str], ...] = (
    (ReadOnlyError, "READONLY"),
    (OutOfMemoryError, "OOM"),
    (NoPermissionError, "NOPERM"),
    (AuthenticationError, "NOAUTH"),
    (MasterDownError, "MASTERDOWN"),
    (BusyLoadingError, "LOADING"),
)
_OTHER_REFUSALS = ("MISCONF", "NOREPLICAS", "CLUSTERDOWN")
_PROBE_KEY = "uplift:can_enqueue"
AWAY = "away"


async def refusal(client: redis.asyncio.Redis) -> str | None:
    """Why Redis takes no message now: its own word for it, or AWAY; None if it takes some.

    It reads while it refuses to write, so this writes: to a key of its own, as to a queue.
    """
    try:
        async with client.pipeline(transaction=True) as both:
            both.delete(_PROBE_KEY)  # whatever it holds
            both.lpush(_PROBE_KEY, 1)
            both.delete(_PROBE_KEY)
            await both.execute()
    except (RedisError, OSError) as error:
        known = next((word for kind, word in _REFUSALS if isinstance(error, kind)), None)
        if known is None and isinstance(error, ResponseError):
            # The whole text may quote settings.
            known = next((word for word in _OTHER_REFUSALS if word in str(error)), "an error")
        return known or AWAY
    return None


def publisher(settings: Settings) -> Celery:
    """A Celery application that only publishes, and fails within seconds.

    Raises ConfigurationError for a wrong address.
    """
    app = celery_app("dispatch", redis_url(settings))
    app.conf.update(
        task_ignore_result=True,
        task_publish_retry=False,
        broker_transport_options={**_TIMEOUTS, "max_retries": 1},
    )
    return app


def celery_app(name: str, url: str) -> Celery:
    """A Celery application that imports nothing from the current folder.

    Only the calling process configures it: neither CELERY_CONFIG_MODULE nor Django does.
    """
    return Celery(name, broker=url, loader=_Loader, fixups=[], set_as_current=False)


class _Loader(AppLoader):
    """Celery's loader puts the current folder on sys.path at each import. This one does not."""

    def import_from_cwd(
        self, module: str, imp: Any = None, package: str | None = None
    ) -> ModuleType:
        """Import it as every other module is imported."""
        found: ModuleType = (imp or self.import_module)(module, package=package)
        return found

    def find_module(self, module: str) -> ModuleType:
        """Import it as every other module is imported."""
        return importlib.import_module(module)

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> Any:  # noqa: ARG002
        """No configuration besides the one that the application is given."""
        return None
