"""Secrets in files, and who gets which."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from uplift.cli.local.needs import NEEDS, SECRETS, only_needed
from uplift.errors import ConfigurationError
from uplift.secret_files import FLOWER_SECRETS, read_secret, with_secrets
from uplift.settings import Settings, secrets

NAMES = list(secrets().values())


@pytest.fixture(autouse=True)
def no_secrets_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


def test_these_settings_are_secrets() -> None:
    assert set(NAMES) == {
        "UPLIFT_DATABASE_URL",
        "UPLIFT_MIGRATION_DATABASE_URL",
        "UPLIFT_REDIS_URL",
        "UPLIFT_MASTER_KEYS",
        "UPLIFT_ID_KEY",
        "UPLIFT_DESTINATION_PASSWORD",
        "UPLIFT_DESTINATION_CLIENT_SECRET",
        "UPLIFT_ONEUP_CLIENT_SECRET",
    }


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize(("field", "name"), secrets().items())
def test_a_secret_may_be_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str, name: str, end: str
) -> None:
    (tmp_path / "secret").write_bytes(f" caf\u00e9 {end}".encode())
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))
    assert getattr(Settings(), field).get_secret_value() == " caf\u00e9 "


@pytest.mark.parametrize("name", NAMES)
def test_both_set_is_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret").write_text("canary")
    monkeypatch.setenv(name, "canary")
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))
    with pytest.raises(ValidationError, match=f"{name} and {name}_FILE are both set") as caught:
        Settings()
    assert "canary" not in str(caught.value)


def test_an_empty_variable_beside_the_file_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of the file")
    monkeypatch.setenv("UPLIFT_MASTER_KEYS", "")
    monkeypatch.setenv("UPLIFT_MASTER_KEYS_FILE", str(tmp_path / "secret"))
    found = Settings().master_keys
    assert found is not None
    assert found.get_secret_value() == "of the file"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"", "is empty"), (b"\n", "is empty"), (b"\xff", "is not text")],
)
def test_a_file_that_cannot_be_read_is_told_by_the_name_of_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv("UPLIFT_REDIS_URL_FILE", str(tmp_path / "secret"))
    with pytest.raises(ValidationError, match=f"UPLIFT_REDIS_URL_FILE names .*{said}") as caught:
        Settings()
    # Somebody may have written the secret itself there.
    assert str(tmp_path) not in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="A_FILE names cannot be read"):
        read_secret("A", {"A_FILE": str(tmp_path)})


def test_the_names_of_files_are_replaced_by_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("user:password\n")
    given = {"FLOWER_BASIC_AUTH_FILE": str(tmp_path / "secret"), "FLOWER_PORT": "5555"}
    found = with_secrets(FLOWER_SECRETS, given)
    assert found == {"FLOWER_BASIC_AUTH": "user:password", "FLOWER_PORT": "5555"}


def test_a_process_gets_the_secrets_that_it_needs_and_no_others() -> None:
    everything = dict.fromkeys(SECRETS, "secret") | {"UPLIFT_API_PORT": "8080"}
    for name, needed in NEEDS.items():
        given = {each: value for each, value in only_needed(name, everything).items() if value}
        others = {"UPLIFT_API_PORT", *FLOWER_SECRETS}
        if "UPLIFT_MASTER_KEYS" in needed:  # it may speak to a destination
            others |= {"UPLIFT_DESTINATION_PASSWORD", "UPLIFT_DESTINATION_CLIENT_SECRET"}
        found = set(given) - others | (needed & set(given))
        assert found == needed, name
        assert "UPLIFT_API_PORT" in given
    assert NEEDS["flower"] == {"UPLIFT_REDIS_URL", "FLOWER_BASIC_AUTH"}
    assert NEEDS["migrate"] == {"UPLIFT_MIGRATION_DATABASE_URL"}
