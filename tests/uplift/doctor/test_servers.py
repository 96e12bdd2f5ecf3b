"""What the doctor says about the destinations that the deployment logs in to."""

import pytest
from pydantic import SecretStr

from tests.keys import ID_KEY
from uplift.destinations.responses import Response, ResponseKind
from uplift.doctor import configuration, servers, upstream
from uplift.doctor.findings import Verdict
from uplift.fhir.versions import FhirVersion
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings


@pytest.mark.parametrize(
    ("response", "verdict", "said"),
    [
        (Response(ResponseKind.FOUND, "http_200", 200), Verdict.OK, "takes the login"),
        (Response(ResponseKind.HOLD, "wrong_fhir_version", 200), Verdict.FAIL, "another FHIR"),
        (Response(ResponseKind.HOLD, "no_fhir_version", 404), Verdict.FAIL, "no /metadata"),
        (Response(ResponseKind.HOLD, "no_fhir_version", 403), Verdict.FAIL, "not accepted"),
        (Response(ResponseKind.UNAUTHORIZED, "http_401", 401), Verdict.FAIL, "not accepted"),
        (Response(ResponseKind.BUSY, "http_429", 429), Verdict.WARN, "busy"),
        (Response(ResponseKind.NOT_SENT, "no_connection"), Verdict.FAIL, "does not respond"),
        (Response(ResponseKind.UNKNOWN, "no_answer"), Verdict.FAIL, "does not respond"),
    ],
)
def test_a_response_to_metadata_is_judged(response: Response, verdict: Verdict, said: str) -> None:
    finding = servers.judge_server("hapi", FhirVersion.R4, response)
    assert finding.verdict is verdict
    assert said in finding.what
    assert "hapi, base of R4" in finding.what


async def test_each_base_of_a_server_is_asked_with_its_login(settings: Settings) -> None:
    with SandboxServer(SandboxConfig(like="hapi", auth="client_credentials")) as hapi:
        at_hapi = settings.model_copy(
            update={
                "destination": "hapi",
                "destination_r4": f"{hapi.url}/r4",
                "destination_stu3": f"{hapi.url}/dstu2",
                "destination_login": "client_credentials",
                "destination_token_url": hapi.token_url,
                "destination_client_id": hapi.config.client_id,
                "destination_client_secret": SecretStr(hapi.config.client_secret),
                "oneup_client_id": "",
            }
        )
        found = await servers.ask(at_hapi)
        assert [finding.verdict for finding in found] == [
            Verdict.FAIL,  # the base of STU3 is of DSTU2
            Verdict.OK,
            Verdict.WARN,  # HAPI does not declare updateCreate
        ]
        wrong = at_hapi.model_copy(update={"destination_client_secret": SecretStr("canary")})
        refused = await servers.ask(
            wrong.model_copy(update={"destination_scope": "another", "destination_stu3": ""})
        )
        assert [finding.verdict for finding in refused] == [Verdict.FAIL]
        assert "canary" not in str(refused)
        assert await upstream.ask(at_hapi) == [], "nobody has a grant there"


async def test_of_1uphealth_only_what_it_says_of_itself_is_read(
    settings: Settings, upstream: SandboxServer
) -> None:
    found = await servers.ask(settings, write=True)
    assert [finding.verdict for finding in found] == [Verdict.OK] * 3
    assert all("what mode oneup needs" in finding.what for finding in found)
    assert {each["path"][-9:] for each in upstream.requests()} == {"/metadata"}
    away = settings.model_copy(update={"oneup_fhir_url": "http://127.0.0.1:1"})
    assert await servers.ask(away) == [], "another part says that it does not respond"


def test_without_1uphealth_its_client_is_not_missed() -> None:
    at_hapi = Settings(
        destination="hapi", destination_r4="https://hapi.example", id_key=SecretStr(ID_KEY)
    )
    said = [finding.what for finding in configuration.judge_settings(at_hapi)]
    assert not [each for each in said if "ONEUP" in each]


def test_destinations_that_cannot_be_used_are_the_settings_fault() -> None:
    said = [f.what for f in configuration.judge_settings(Settings(destination="hapi"))]
    assert [each for each in said if "has no base" in each]
