"""The address of Redis, and the clients that connect to it."""

import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from uplift.errors import ConfigurationError
from uplift.redis_connection import celery_app, redis_url
from uplift.settings import Settings


def test_without_an_address_the_error_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match="UPLIFT_REDIS_URL is not set"):
        redis_url(Settings(redis_url=None))


@pytest.mark.parametrize(
    "url",
    [
        "canary",
        "redis//:canary@host/0",
        "http://:canary@host/0",
        "redis://:canary@host:port/0",
        "redis://:canary/1@host/0",
        "redis://:canary@host/name",
    ],
)
def test_a_malformed_address_is_an_error_that_does_not_show_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="UPLIFT_REDIS_URL is not an address") as caught:
        redis_url(Settings(redis_url=SecretStr(url)))
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host:6379/",
        "redis://:pass%2Fword@host:6379/3",
        "rediss://user:word@[::1]:6380/0?ssl_cert_reqs=none",
    ],
)
def test_an_address_is_used_as_it_is(url: str) -> None:
    assert redis_url(Settings(redis_url=SecretStr(url))) == url


def test_celery_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(tmp_path))])
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "only_here")
    app = celery_app("test", "redis://127.0.0.1:1/0")
    assert app.conf.broker_url == "redis://127.0.0.1:1/0"
    for load in (app.loader.import_from_cwd, app.loader.find_module, app.loader.import_task_module):
        with pytest.raises(ModuleNotFoundError):
            load("only_here")
