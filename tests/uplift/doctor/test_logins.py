"""What the doctor says about the logins that ask a token endpoint."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.keys import ID_KEY
from tests.uplift.tokens.login_keys import ec_private, pem, write_service_account
from uplift.destinations.destination import (
    ClientCredentialsLogin,
    PrivateKeyLogin,
    ServiceAccountLogin,
    TokenLogin,
)
from uplift.doctor import logins
from uplift.doctor.findings import Finding, Verdict
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.tokens.signing_keys import key_set, read_key

SECRET = ClientCredentialsLogin("https://a/token", "uplift", SecretStr("s"), "system/*.read")
SIGNED = PrivateKeyLogin("uplift", Path("/k"))
GOOGLE = ServiceAccountLogin(Path("/sa"), "https://scope")


@pytest.mark.parametrize(
    ("login", "code", "said"),
    [
        (SECRET, "invalid_client", "Check client_id, client_secret and client_style."),
        (SECRET, "http_401", "Check client_id, client_secret"),
        (SECRET, "invalid_scope", "Grant 'system/*.read' to the client"),
        (SECRET, "unauthorized_client", "grant client_credentials"),
        (SECRET, "http_404", "Check token_url."),
        (SECRET, "http_403", "a proxy in front of it"),
        (SECRET, "http_422", "Ask the server's operator"),
        (SECRET, "no_token_endpoint", "Set token_url"),
        (SIGNED, "invalid_client", "`uplift destinations jwks clinic`"),
        (SIGNED, "unknown_key", "the key abc signs"),
        (SIGNED, "clock_skew", "NTP"),
        (SIGNED, "invalid_scope", "set scope, such as system/*.cruds"),
        (SIGNED, "algorithm_not_taken", "new-key FILE --algorithm"),
        (GOOGLE, "invalid_grant", "The key abc was deleted in Google Cloud"),
        (GOOGLE, "unknown_key", "The key abc was deleted in Google Cloud"),
        (GOOGLE, "unsupported_grant_type", "grant jwt-bearer"),
    ],
)
def test_each_cause_has_a_cure(login: TokenLogin, code: str, said: str) -> None:
    finding = logins.judge_refusal("clinic", login, code, "abc")
    assert finding.verdict is Verdict.FAIL
    assert finding.do is not None
    assert said in finding.do
    assert finding.what.startswith("clinic: ")
    assert f"({code})" in finding.what


class Clinic:
    """A sandbox that knows one key, and the settings of a deployment that has it."""

    def __init__(self, server: SandboxServer, key_file: Path) -> None:
        self.settings: dict[str, Any] = {
            "destination": "clinic",
            "destination_preset": "hapi",
            "id_key": SecretStr(ID_KEY),
            "destination_r4": f"{server.url}/r4",
            "destination_login": "private_key_jwt",
            "destination_client_id": server.config.client_id,
            "destination_key_file": key_file,
            "destination_scope": "system/*.cruds",
        }

    async def finding(self, **changed: object) -> Finding:
        (found,) = await logins.ask(Settings(**{**self.settings, **changed}))
        return found


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    folder = tmp_path_factory.mktemp("keys")
    key, jwks = folder / "key.pem", folder / "jwks.json"
    key.write_bytes(pem(ec_private()))
    jwks.write_text(json.dumps(key_set([read_key(key)])))
    config = SandboxConfig(like="hapi", auth="private_key_jwt", jwks=jwks)
    with SandboxServer(config) as server:
        yield Clinic(server, key)


async def test_a_login_that_works_names_the_key_that_signs(clinic: Clinic) -> None:
    finding = await clinic.finding()
    assert finding.verdict is Verdict.OK
    assert read_key(clinic.settings["destination_key_file"]).kid in finding.what


async def test_the_causes_of_a_failed_login_are_told_apart(clinic: Clinic, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(pem(ec_private("second")))
    assert "(unknown_key)" in (await clinic.finding(destination_key_file=other)).what
    assert "(invalid_client)" in (await clinic.finding(destination_client_id="x")).what
    assert "(invalid_scope)" in (await clinic.finding(destination_scope="user/*.read")).what
    nowhere = f"{clinic.settings['destination_r4']}/x"
    assert "(no_token_endpoint)" in (await clinic.finding(destination_r4=nowhere)).what
    other.write_text("no key")
    unusable = await clinic.finding(destination_key_file=other)
    assert (unusable.verdict, "new-key" in unusable.what) == (Verdict.FAIL, True)
    away = await clinic.finding(destination_token_url="http://127.0.0.1:9/token")
    assert (away.verdict, "no_answer" in away.what) == (Verdict.WARN, True)


async def test_a_service_account_is_tried_too(tmp_path: Path) -> None:
    account = tmp_path / "sa.json"
    config = SandboxConfig(like="hapi", auth="jwt_bearer", service_account=account)
    with SandboxServer(config) as server:
        write_service_account(account, server.token_url)
        settings = Settings(
            destination="clinic",
            destination_preset="hapi",
            id_key=SecretStr(ID_KEY),
            destination_r4=f"{server.url}/r4",
            destination_login="jwt_bearer",
            destination_service_account_file=account,
            destination_scope="https://www.googleapis.com/auth/cloud-healthcare",
        )
        (works,) = await logins.ask(settings)
        wrong = settings.model_copy(update={"destination_scope": "system/*.cruds"})
        (refused,) = await logins.ask(wrong)
    assert (works.verdict, refused.verdict) == (Verdict.OK, Verdict.FAIL)
    assert "(invalid_scope)" in refused.what


async def test_other_logins_have_no_token_endpoint() -> None:
    assert await logins.ask(Settings(oneup_client_id="app")) == []


@pytest.mark.parametrize(
    ("scope", "verdict"), [("", Verdict.OK), ("https://elsewhere/.default", Verdict.FAIL)]
)
async def test_azures_scope_follows_from_the_base(scope: str, verdict: Verdict) -> None:
    with SandboxServer(SandboxConfig(like="azure")) as server:
        settings = Settings(
            destination="azure",
            id_key=SecretStr(ID_KEY),
            destination_r4=f"{server.url}/r4",
            destination_client_id=server.config.client_id,
            destination_client_secret=SecretStr(server.config.client_secret),
            destination_scope=scope,
        )
        (found,) = await logins.ask(settings)
    assert found.verdict is verdict
    assert ("(invalid_scope)" in found.what) is (verdict is Verdict.FAIL)
