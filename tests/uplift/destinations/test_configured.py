"""The destinations of the settings: one by the environment alone, or several by a file."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from tests.keys import ID_KEY
from uplift.destinations.configured import configured_destinations
from uplift.destinations.destination import (
    BasicLogin,
    BearerLogin,
    BundleType,
    ClientCredentialsLogin,
    ClientStyle,
    Destination,
    Mode,
    NoLogin,
    OneUpLogin,
    Subject,
)
from uplift.destinations.presets import PRESETS
from uplift.errors import ConfigurationError
from uplift.fhir.versions import FhirVersion
from uplift.settings import Settings

R4, DSTU2 = FhirVersion.R4, FhirVersion.DSTU2
KEY = SecretStr(ID_KEY)


def _file(tmp_path: Path, text: str, default: str = "hapi") -> Settings:
    file = tmp_path / "destinations.toml"
    file.write_text(text)
    return Settings(destination=default, destinations_file=file, id_key=KEY)


def test_without_any_setting_there_is_1uphealth_with_its_three_bases() -> None:
    found = configured_destinations(Settings(oneup_fhir_url="https://api.example.org/"))
    oneup = found[found.default]
    assert (oneup.name, oneup.mode, oneup.subject) == ("oneup", Mode.ONEUP, Subject.AS_IS)
    assert oneup.base(R4) == "https://api.example.org/r4"
    assert set(oneup.bases) == set(FhirVersion)
    assert oneup.login == OneUpLogin()
    assert oneup.needs_grant
    assert not oneup.derives_ids


def test_one_destination_needs_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLIFT_DESTINATION", "hapi")
    monkeypatch.setenv("UPLIFT_ID_KEY", ID_KEY)
    monkeypatch.setenv("UPLIFT_DESTINATION_R4", "https://hapi.example.org/r4/")
    monkeypatch.setenv("UPLIFT_DESTINATION_TENANT", "clinic")
    monkeypatch.setenv("UPLIFT_DESTINATION_HEADERS", '{"X-Name": "value"}')
    found = configured_destinations(Settings())
    hapi = found["hapi"]
    assert list(found) == ["hapi"]
    assert hapi.base(R4) == "https://hapi.example.org/r4/clinic"
    assert hapi.base(DSTU2) is None
    assert (hapi.mode, hapi.subject, hapi.login) == (Mode.PUT, Subject.PATIENT, NoLogin())
    assert hapi.headers == {"X-Name": "value"}
    assert found.derive_ids


def test_1uphealth_stays_beside_it_while_its_client_is_set() -> None:
    found = configured_destinations(
        Settings(
            destination="hapi",
            id_key=KEY,
            destination_r4="https://hapi.example.org",
            oneup_client_id="app",
        )
    )
    assert set(found) == {"hapi", "oneup"}
    assert found.default == "hapi"
    assert found["oneup"].mode is Mode.ONEUP


def test_a_file_names_several(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    settings = _file(
        tmp_path,
        f"""
        [oneup]
        [hapi]
        r4 = "https://a.example.org/fhir"
        max_attempts_per_second = 7
        [clinic]
        preset = "hapi"
        dstu2 = "https://b.example.org/fhir"
        mode = "upsert"
        login = "client_credentials"
        token_url = "https://b.example.org/token"
        client_id = "uplift"
        client_secret_file = "{tmp_path / "secret"}"
        client_style = "post"
        """,
        default="clinic",
    )
    found = configured_destinations(settings)
    assert set(found) == {"oneup", "hapi", "clinic"}
    assert found["hapi"].max_attempts_per_second == 7
    clinic = found["clinic"]
    assert clinic.mode is Mode.UPSERT
    assert clinic.login == ClientCredentialsLogin(
        "https://b.example.org/token", "uplift", SecretStr("s3cret"), "", ClientStyle.POST
    )
    assert "s3cret" not in repr(clinic)


def test_a_preset_decides_what_no_setting_does_and_a_setting_overrides_it() -> None:
    settings = Settings(destination="hapi", id_key=KEY, destination_r4="https://hapi.example.org")
    preset = configured_destinations(settings)["hapi"]
    changed = {"destination_subject": "as_is", "destination_media_type": "application/json"}
    own = configured_destinations(settings.model_copy(update=changed))["hapi"]
    assert (preset.subject, preset.media_type) == (Subject.PATIENT, "application/fhir+json")
    assert (own.subject, own.media_type) == (Subject.AS_IS, "application/json")


def test_bundles_are_a_choice_and_have_bounds(tmp_path: Path) -> None:
    base = 'r4 = "https://hapi.example.org"\n'
    table = 'bundle = "transaction"\nbundle_entries = 30\nbundle_bytes = 5000\n'
    found = configured_destinations(_file(tmp_path, f"[hapi]\n{base}"))["hapi"]
    assert (found.bundle, found.max_together) == (BundleType.NONE, 1)
    found = configured_destinations(_file(tmp_path, f"[hapi]\n{base}{table}"))["hapi"]
    assert (found.bundle, found.max_together) == (BundleType.TRANSACTION, 30)
    assert found.bundle_bytes == 5000


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('bundle = "batch"\nmode = "oneup"', "Bundles need mode put or upsert"),
        ('bundle = "all"', "bundle"),
        ("bundle_entries = 101", "bundle_entries"),
        ("bundle_entries = 0", "bundle_entries"),
    ],
)
def test_no_bundle_that_could_store_a_record_twice_or_has_no_bounds(
    tmp_path: Path, table: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        configured_destinations(
            _file(tmp_path, f'[hapi]\nr4 = "https://hapi.example.org"\n{table}')
        )


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"oneup"}))
def test_each_preset_needs_a_base_and_what_its_login_asks_for(name: str) -> None:
    logins: dict[str, dict[str, Any]] = {
        "none": {},
        "client_credentials": {
            "destination_client_id": "uplift",
            "destination_client_secret": SecretStr("s"),
        },
        "jwt_bearer": {"destination_service_account_file": Path("account.json")},
    }
    given = {"destination_r4": "https://a.example.org/fhir", **logins[PRESETS[name].login]}
    settings = Settings(destination=name, id_key=KEY).model_copy(update=given)
    assert configured_destinations(settings)[name].derives_ids
    pages = Path(__file__).parents[3] / "docs" / "destinations"
    assert f"`{name}`" in (pages / "README.md").read_text()
    page = "hapi" if name == "smile" else name
    assert PRESETS[name].history.endswith(f": see docs/destinations/{page}.md.")


def test_a_preset_knows_the_scope_the_limit_and_the_media_type() -> None:
    def made(name: str, **own: Any) -> Destination:
        login = {"destination_client_id": "c", "destination_client_secret": SecretStr("s")}
        given = {"destination_token_url": "https://t", "destination_r4": "https://a/f"}
        settings = Settings(destination=name, id_key=KEY)
        settings = settings.model_copy(update=given | login | own)
        return configured_destinations(settings)[name]

    azure, medplum = made("azure").login, made("medplum")
    assert isinstance(azure, ClientCredentialsLogin)
    assert azure.scope == "https://a/f/.default"
    assert medplum.max_attempts_per_second == 8
    own = made("medplum", destination_max_attempts_per_second=50.0)
    assert own.max_attempts_per_second == 50
    firely = made("firely", destination_stu3="https://a/3")
    assert firely.media_type_of(R4) == "application/fhir+json; fhirVersion=4.0"
    assert firely.media_type_of(FhirVersion.STU3) == "application/fhir+json; fhirVersion=3.0"


def test_each_login_has_what_it_needs(tmp_path: Path) -> None:
    token = tmp_path / "token"
    bearer = _file(tmp_path, f'[hapi]\nr4 = "http://a"\nlogin = "bearer"\ntoken_file = "{token}"\n')
    assert configured_destinations(bearer)["hapi"].login == BearerLogin(token)
    basic = Settings(
        destination="hapi",
        id_key=KEY,
        destination_r4="http://a",
        destination_login="basic",
        destination_user="u",
        destination_password=SecretStr("p"),
    )
    assert configured_destinations(basic)["hapi"].login == BasicLogin("u", SecretStr("p"))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('[hapi]\nr5 = "https://a"', "no setting r5. Is it r4?"),
        ('[hapi]\ntokenurl = "https://a"', "Is it token_url?"),
        ('[hapi]\nr4 = "https://a"\nclient_secret = "x"', "client_secret_file"),
        ('[hapi]\nr4 = "https://a"\nmode = "post"', "mode"),
        ('[hapi]\nr4 = "fhir.example.org"', "r4: It must be an address that begins with https://"),
        ("[hapi]", "no base"),
        ('[clinic]\nr4 = "https://a"', "no preset 'clinic'"),
        ('hapi = "https://a"', "not in a table"),
        ('[hapi]\nr4 = "https://a"\nlogin = "basic"', "needs user"),
        ("", "no table"),
        ("[hapi", "not TOML"),
        ('[oneup]\nr4 = "https://a"', "no such table"),
    ],
)
def test_a_wrong_file_says_what_to_change(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configured_destinations(_file(tmp_path, table))
    assert said in str(raised.value)


def test_a_file_that_is_not_there_is_named_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="UPLIFT_DESTINATIONS_FILE"):
        configured_destinations(Settings(destinations_file=tmp_path / "none.toml"))


def test_an_unknown_setting_of_the_environment_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UPLIFT_DESTINATION_TOKENURL", "https://a")
    with pytest.raises(ValidationError, match="Is it UPLIFT_DESTINATION_TOKEN_URL"):
        Settings()


def test_a_secret_of_the_environment_may_be_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("p")
    monkeypatch.setenv("UPLIFT_DESTINATION_PASSWORD_FILE", str(tmp_path / "password"))
    assert Settings().destination_password == SecretStr("p")


def test_a_destination_is_not_set_in_two_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UPLIFT_DESTINATION_R4", "https://a")
    with pytest.raises(ValidationError, match="both set"):
        _file(tmp_path, "[oneup]")


def test_an_address_names_what_makes_it_another_server() -> None:
    def address(**changed: str) -> str:
        settings = Settings(destination="hapi", id_key=KEY, destination_r4="https://a")
        return configured_destinations(settings.model_copy(update=changed))["hapi"].address

    assert address() == address(destination_subject="as_is", destination_proxy="http://p")
    different = [
        address(destination_r4="https://b"),
        address(destination_dstu2="https://a"),
        address(destination_tenant="t"),
        address(destination_mode="upsert"),
    ]
    assert len({address(), *different}) == 5


def test_a_destination_with_derived_ids_needs_the_id_key() -> None:
    with pytest.raises(ConfigurationError, match="UPLIFT_ID_KEY"):
        configured_destinations(Settings(destination="hapi", destination_r4="https://a"))
