"""The public keys of the logins, for servers that read them at an address."""

from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from tests.api.calls import assert_problem
from tests.keys import ID_KEY
from uplift.settings import Settings
from uplift.tokens.signing_keys import new_key, write_key

WHERE = "/.well-known/jwks.json"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """A deployment with a key that signs, and another one."""
    files = tmp_path / "key.pem", tmp_path / "other.pem"
    for file in files:
        write_key(new_key("ES384"), file)
    return settings.model_copy(
        update={
            "destination": "hapi",
            "id_key": SecretStr(ID_KEY),
            "destination_r4": "https://fhir.example.org/r4",
            "destination_login": "private_key_jwt",
            "destination_client_id": "uplift",
            "destination_key_file": files[0],
            "destination_other_key_file": files[1],
        }
    )


async def test_both_keys_are_shown_and_nothing_private(anybody: httpx.AsyncClient) -> None:
    answer = await anybody.get(WHERE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "public, max-age=300"
    shown = answer.json()["keys"]
    assert len({each["kid"] for each in shown}) == 2
    assert all("d" not in each and each["alg"] == "ES384" for each in shown)


async def test_a_key_that_cannot_be_read_hides_all(
    anybody: httpx.AsyncClient, settings: Settings
) -> None:
    assert settings.destination_other_key_file is not None
    settings.destination_other_key_file.write_text("no key")
    problem = assert_problem(await anybody.get(WHERE), 500)
    assert "uplift doctor" in problem["detail"]
    assert str(settings.data_dir) not in problem["detail"]
