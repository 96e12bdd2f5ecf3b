"""The entries of the processes, as the console command calls them: not from the current folder."""

import os
import sys

from uplift.settings import Settings

WORKER = 'from uplift.worker.process import main; main("uploads")'
BULK = 'from uplift.worker.process import main; main("bulk")'
BEAT = "from uplift.worker.beat import main; main()"
FLOWER = "from uplift.worker.flower import main; main([])"


def command(code: str) -> list[str]:
    """Runs `code` without the current folder on sys.path, as a console script does."""
    return [sys.executable, "-P", "-c", code]


def environment(settings: Settings, **changed: str) -> dict[str, str]:
    """The environment of a process with these settings."""
    assert settings.database_url is not None
    assert settings.redis_url is not None
    assert settings.master_keys is not None
    return {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "UPLIFT_SECOND_OPINION": "0",
        "UPLIFT_DATABASE_URL": settings.database_url.get_secret_value(),
        "UPLIFT_REDIS_URL": settings.redis_url.get_secret_value(),
        "UPLIFT_MASTER_KEYS": settings.master_keys.get_secret_value(),
        "UPLIFT_ONEUP_FHIR_URL": settings.oneup_fhir_url,
        "UPLIFT_ONEUP_TOKEN_URL": settings.oneup_token_url,
        "UPLIFT_ONEUP_USERS_URL": settings.oneup_users_url,
        **changed,
    }
