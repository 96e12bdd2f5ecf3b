"""The file of a Google service account's key."""

from pathlib import Path

import pytest

from tests.uplift.tokens.login_keys import (
    EMAIL,
    ec_private,
    pem,
    rsa_private,
    write_service_account,
)
from uplift.errors import UnusableKey
from uplift.tokens.service_account import read_service_account

URL = "https://oauth2.example.org/token"


def test_it_says_who_asks_with_which_key_and_where(tmp_path: Path) -> None:
    account = read_service_account(write_service_account(tmp_path / "sa.json", URL))
    assert (account.email, account.token_url) == (EMAIL, URL)
    assert (account.key.algorithm, account.key.kid) == ("RS256", "0123456789abcdef")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"type": "authorized_user"}, "type service_account"),
        ({"type": "external_account"}, "type service_account"),
        ({"client_email": None}, "no client_email"),
        ({"private_key_id": ""}, "no private_key_id"),
        ({"private_key": None}, "no private_key"),
        ({"private_key": "hidden"}, "no RSA key"),
        ({"private_key": pem(ec_private()).decode()}, "no RSA key"),
        ({"token_uri": "oauth2.example.org"}, "no address"),
    ],
)
def test_another_file_is_refused_with_what_is_needed(
    tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    file = write_service_account(tmp_path / "sa.json", URL, **changed)
    with pytest.raises(UnusableKey) as raised:
        read_service_account(file)
    assert said in str(raised.value)
    assert str(file) in str(raised.value)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "sa.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UnusableKey):
        read_service_account(file)


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    short = pem(rsa_private(1024)).decode()
    file = write_service_account(tmp_path / "sa.json", URL, private_key=short)
    with pytest.raises(UnusableKey, match="2048"):
        read_service_account(file)
