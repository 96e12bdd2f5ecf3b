"""How many files a process may open at once: each connection is one."""

import errno
import os
import resource

from uplift.errors import ConfigurationError
from uplift.settings import Settings

# For PostgreSQL, Redis, logs and libraries.
_OTHER_FILES = 200
# Some systems have no limit, or one of a thousand million.
_MAX_FILES = 65_536


def files_of_api(settings: Settings) -> int:
    """How many an API process needs."""
    return settings.api_max_connections + _OTHER_FILES


def files_of_worker(settings: Settings) -> int:
    """How many a worker needs, and more than beat needs."""
    return settings.max_in_flight + _OTHER_FILES


def file_limit() -> int:
    """How many this process may let itself open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)


def raise_file_limit(wanted: int) -> None:
    """Let this process open as many as it may. Raises ConfigurationError if that is too few."""
    limit = file_limit()
    if limit < wanted:
        raise ConfigurationError(
            f"it may open {limit} files and needs {wanted}. Raise the limit (`ulimit -n`, systemd's"
            " LimitNOFILE), or lower UPLIFT_API_MAX_CONNECTIONS or UPLIFT_MAX_IN_FLIGHT."
        )
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def lacks_files() -> bool:
    """Whether this process can open no file now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False
