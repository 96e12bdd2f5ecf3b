"""The settings, and the example file of them."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError

from uplift.cli.pages.settings import example
from uplift.settings import Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".env.example"


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("UPLIFT_"):
            monkeypatch.delenv(name)


def test_the_example_file_equals_the_settings() -> None:
    assert EXAMPLE.read_text() == example(), (
        "run: python -m uplift.cli.pages.settings > .env.example"
    )


def test_the_example_file_names_every_setting_once() -> None:
    names = re.findall(r"^UPLIFT_(\w+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(name.lower() for name in names) == sorted(Settings.model_fields)


def test_the_example_file_holds_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dotenv_values(EXAMPLE).items():
        monkeypatch.setenv(name, value or "")
    from_file = Settings()
    for name in Settings.model_fields:
        monkeypatch.delenv(f"UPLIFT_{name.upper()}")

    assert from_file == Settings()


def test_a_shell_reads_the_example_file_as_the_settings_do() -> None:
    done = subprocess.run(
        ["/bin/sh", "-euc", "set -a; . ./.env.example; env"],
        cwd=ROOT,
        env={},
        check=True,
        capture_output=True,
        text=True,
    )
    by_shell = dict(line.split("=", 1) for line in done.stdout.splitlines())
    for name, value in dotenv_values(EXAMPLE).items():
        assert by_shell[name] == value


def test_no_secret_has_a_default() -> None:
    for field in Settings.model_fields.values():
        if "SecretStr" in str(field.annotation):
            assert field.default in (None, SecretStr(""))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        (" https://app.example.org , http://localhost:3000,", "https://app.example.org,http://localhost:3000"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)  # fmt: skip
def test_origins_are_a_list_between_commas(given: str, kept: str) -> None:
    assert Settings(cors_origins=given).cors_origins == kept


@pytest.mark.parametrize(
    "given", ["*", "app.example.org", "https://a.example/", "https://A.example", "null", "https://"]
)
def test_what_is_no_origin_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="list of origins"):
        Settings(cors_origins=given)


def test_every_setting_is_described() -> None:
    undescribed = [name for name, field in Settings.model_fields.items() if not field.description]
    assert undescribed == []


def test_secrets_are_not_shown() -> None:
    settings = Settings(
        database_url=SecretStr("postgresql://uplift:canary@host/uplift"),
        oneup_client_secret=SecretStr("canary"),
    )
    assert "canary" not in repr(settings)
    assert "canary" not in settings.model_dump_json()


def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLIFT_MAX_IN_FLIGHT", "many")
    with pytest.raises(ValidationError, match="max_in_flight"):
        Settings()


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "0"])
def test_a_time_is_a_positive_and_finite_number_of_seconds(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("UPLIFT_SWEEP_SECONDS", value)
    with pytest.raises(ValidationError, match="sweep_seconds"):
        Settings()
