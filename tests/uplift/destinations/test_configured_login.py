"""The logins of the settings: each by the environment alone, and what a wrong setting says."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.keys import ID_KEY
from uplift.destinations.configured import configured_destinations
from uplift.destinations.destination import (
    BasicLogin,
    BearerLogin,
    ClientCredentialsLogin,
    ClientStyle,
    Login,
    NoLogin,
    PrivateKeyLogin,
    ServiceAccountLogin,
)
from uplift.errors import ConfigurationError
from uplift.settings import Settings

BASE = "https://fhir.example.org/r4"


def login_of(monkeypatch: pytest.MonkeyPatch, **settings: str) -> Login:
    """The login of the one destination that the environment describes."""
    monkeypatch.setenv("UPLIFT_DESTINATION", "clinic")
    monkeypatch.setenv("UPLIFT_ID_KEY", ID_KEY)
    for name, value in {"preset": "hapi", "r4": BASE, **settings}.items():
        monkeypatch.setenv(f"UPLIFT_DESTINATION_{name.upper()}", value)
    return configured_destinations(Settings())["clinic"].login


@pytest.mark.parametrize(
    ("settings", "login"),
    [
        ({}, NoLogin()),
        ({"login": "bearer", "token_file": "/t"}, BearerLogin(Path("/t"))),
        ({"login": "basic", "user": "u", "password": "p"}, BasicLogin("u", SecretStr("p"))),
        (
            {
                "login": "client_credentials",
                "token_url": "https://a/token",
                "client_id": "u",
                "client_secret": "s",
                "scope": "system/*.cruds",
                "client_style": "post",
            },
            ClientCredentialsLogin(
                "https://a/token", "u", SecretStr("s"), "system/*.cruds", ClientStyle.POST
            ),
        ),
        (
            {"login": "client_credentials", "client_id": "u", "client_secret": "s"},
            ClientCredentialsLogin("", "u", SecretStr("s")),
        ),
        (
            {"login": "private_key_jwt", "client_id": "u", "key_file": "/k"},
            PrivateKeyLogin("u", Path("/k")),
        ),
        (
            {
                "login": "private_key_jwt",
                "client_id": "u",
                "key_file": "/k",
                "other_key_file": "/o",
                "jwks_url": "https://u/jwks",
                "token_url": "https://a/token",
                "scope": "system/*.cruds",
            },
            PrivateKeyLogin(
                "u", Path("/k"), Path("/o"), "https://u/jwks", "https://a/token", "system/*.cruds"
            ),
        ),
        (
            {"login": "jwt_bearer", "service_account_file": "/sa", "scope": "https://s"},
            ServiceAccountLogin(Path("/sa"), "https://s"),
        ),
        (
            {
                "login": "jwt_bearer",
                "service_account_file": "/sa",
                "scope": "{base}/.default",
                "token_url": "https://a/token",
            },
            ServiceAccountLogin(Path("/sa"), f"{BASE}/.default", "https://a/token"),
        ),
    ],
)
def test_each_login_needs_the_environment_alone(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], login: Login
) -> None:
    assert login_of(monkeypatch, **settings) == login


_SIGNED = {"login": "private_key_jwt", "client_id": "u", "key_file": "/k"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"login": "bearer"},
            "token_file (in the environment UPLIFT_DESTINATION_TOKEN_FILE)",
        ),
        ({"login": "basic", "user": "u"}, "needs password"),
        ({"login": "client_credentials", "client_secret": "s"}, "needs client_id"),
        ({"login": "client_credentials", "client_id": "u"}, "needs client_secret"),
        ({"login": "private_key_jwt", "key_file": "/k"}, "needs client_id"),
        ({"login": "private_key_jwt", "client_id": "u"}, "needs key_file"),
        ({"login": "jwt_bearer", "scope": "s"}, "needs service_account_file"),
        ({"login": "jwt_bearer", "service_account_file": "/sa"}, "needs scope"),
        # A setting of another login would do nothing.
        ({"client_id": "u"}, "its login is none"),
        (_SIGNED | {"client_secret": "s"}, "has client_secret, which is for the login client_cr"),
        (_SIGNED | {"password": "p"}, "has password, which is for the login basic"),
        (_SIGNED | {"service_account_file": "/sa"}, "which is for the login jwt_bearer"),
        ({"login": "basic", "user": "u", "password": "p", "scope": "s"}, "has scope"),
        ({"login": "bearer", "token_file": "/t", "jwks_url": "https://u"}, "has jwks_url"),
        # The secret would cross the network in the clear.
        (_SIGNED | {"token_url": "http://login.example.org/token"}, "begins with http://"),
        ({"r4": "https://u:secret@b"}, "has a user or a password in its address"),
        # One scope for two bases.
        (_SIGNED | {"scope": "{base}/.default", "dstu2": "https://b"}, "has 2 bases"),
    ],
)
def test_a_wrong_setting_says_what_to_change(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        login_of(monkeypatch, **settings)
    assert said in str(raised.value)
    assert "'clinic'" in str(raised.value)


def test_a_table_of_the_file_has_the_same_settings(tmp_path: Path) -> None:
    file = tmp_path / "destinations.toml"
    file.write_text(
        f'''
        [clinic]
        preset = "hapi"
        r4 = "{BASE}"
        login = "private_key_jwt"
        client_id = "u"
        key_file = "/k"
        other_key_file = "/o"
        [store]
        preset = "google"
        r4 = "{BASE}"
        service_account_file = "/sa"
        '''
    )
    found = configured_destinations(
        Settings(destination="clinic", destinations_file=file, id_key=SecretStr(ID_KEY))
    )
    assert found["clinic"].login == PrivateKeyLogin("u", Path("/k"), Path("/o"))
    scope = "https://www.googleapis.com/auth/cloud-healthcare"
    assert found["store"].login == ServiceAccountLogin(Path("/sa"), scope)


@pytest.mark.parametrize(("own", "scope"), [("", f"{BASE}/.default"), ("own", "own")])
def test_a_preset_may_have_a_scope_that_follows_from_the_base(
    monkeypatch: pytest.MonkeyPatch, own: str, scope: str
) -> None:
    settings = {"preset": "azure", "client_id": "u", "client_secret": "s", "scope": own}
    found = login_of(monkeypatch, **settings)
    assert isinstance(found, ClientCredentialsLogin)
    assert found.scope == scope
