"""The settings of one destination: in the environment, or as a table of the destinations' file.

In the environment their names begin with UPLIFT_DESTINATION_; in the file with nothing.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
)
from pydantic_core import ErrorDetails

from uplift.errors import ConfigurationError

PREFIX = "destination_"

_ADDRESS_BEGINS = ("^(https?://", "^https?://")


def plainly(error: ErrorDetails) -> str:
    """What pydantic says of one setting, for a person who does not read regular expressions."""
    pattern = str(error.get("ctx", {}).get("pattern", ""))
    if pattern.startswith(_ADDRESS_BEGINS):
        return "It must be an address that begins with https:// or http://, without spaces"
    return error["msg"].removeprefix("Value error, ")


_Base = Annotated[str, Field(pattern=r"^(https?://\S+)?$")]


class DestinationSettings(BaseModel):
    """What may be chosen for a destination. An empty value is the preset's."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    destination_preset: str = Field(
        default="",
        description="What kind of server the destination is: oneup, hapi, smile, azure, google,"
        " healthlake, aidbox, firely or medplum. If it is empty, the destination's name is the"
        " preset.",
    )
    destination_r4: _Base = Field(
        default="",
        description="The destination's base for R4, such as https://fhir.example.org/r4. A version"
        " without a base is not accepted for it. Only the preset oneup has bases of its own.",
    )
    destination_stu3: _Base = Field(default="", description="The same for STU3.")
    destination_dstu2: _Base = Field(default="", description="The same for DSTU2.")
    destination_tenant: str = Field(
        default="", description="A path segment behind each base, where a server has tenants."
    )
    destination_mode: Literal["", "oneup", "put", "upsert"] = Field(
        default="",
        description="How records are written. put: PUT to an id that Uplift derives. upsert: PUT"
        " ?identifier=, for servers that choose all ids. oneup: POST, with look-ups.",
    )
    destination_subject: Literal["", "as_is", "patient"] = Field(
        default="",
        description="What becomes of references to the person. patient: they lead to a Patient"
        " that Uplift makes. as_is: they stay.",
    )
    destination_login: Literal[
        "",
        "none",
        "oneup",
        "bearer",
        "basic",
        "client_credentials",
        "private_key_jwt",
        "jwt_bearer",
    ] = Field(
        default="",
        description="How the deployment logs in. oneup: a token a person. private_key_jwt: SMART"
        " Backend Services. jwt_bearer: a Google service account.",
    )
    destination_token_file: Path | None = Field(
        default=None,
        description="Login bearer: the file of the token. It is read again when it changes.",
    )
    destination_user: str = Field(default="", description="Login basic: the user name.")
    destination_password: SecretStr | None = Field(
        default=None, description="Login basic: the password."
    )
    destination_token_url: _Base = Field(
        default="",
        description="The token endpoint, for the logins client_credentials, private_key_jwt and"
        " jwt_bearer. If it is empty, the first two read it from the base's"
        " .well-known/smart-configuration, and the last from the service account's file.",
    )
    destination_client_id: str = Field(
        default="", description="Logins client_credentials, private_key_jwt: the client's id."
    )
    destination_client_secret: SecretStr | None = Field(
        default=None, description="Login client_credentials: the client's secret."
    )
    destination_key_file: Path | None = Field(
        default=None,
        description="Login private_key_jwt: the file of the key that signs, PEM or JWK. `uplift"
        " destinations new-key` makes one. It is read again for each token.",
    )
    destination_other_key_file: Path | None = Field(
        default=None,
        description="Login private_key_jwt: while keys rotate, the next key or the last one. It is"
        " in the JWKS too, and signs nothing.",
    )
    destination_jwks_url: _Base = Field(
        default="",
        description="Login private_key_jwt: the address at which the server reads the JWKS, if it"
        " was registered with one. Assertions name it (jku).",
    )
    destination_service_account_file: Path | None = Field(
        default=None,
        description="Login jwt_bearer: the JSON file of the service account's key. It is read again"
        " for each token.",
    )
    destination_scope: str = Field(
        default="",
        description="The scope to ask for, where a token endpoint is asked. If it is empty, the"
        " preset's.",
    )
    destination_client_style: Literal["basic", "post"] = Field(
        default="basic",
        description="Login client_credentials: where the id and the secret are sent. basic: in a"
        " header. post: in the body.",
    )
    destination_certificate_file: Path | None = Field(
        default=None, description="A client certificate (mTLS) as PEM, beside any login."
    )
    destination_certificate_key_file: Path | None = Field(
        default=None, description="Its key as PEM, if that is in a file of its own."
    )
    destination_proxy: str = Field(
        default="", description="The HTTP proxy to the destination: http://host:port."
    )
    destination_media_type: str = Field(
        default="",
        description="The media type of what is sent and wanted. {fhirVersion} in it stands for the"
        " base's version, as 4.0.",
    )
    destination_headers: dict[str, str] = Field(
        default={}, description='Headers of each request, as a JSON object: {"X-Name": "value"}.'
    )
    destination_on_conflict: Literal["", "look", "retry", "refused"] = Field(
        default="",
        description="What a 409 means where no precondition was sent. look: a read tells. retry:"
        " nothing was stored. refused: the record is never taken.",
    )
    destination_on_precondition: Literal["", "look", "retry", "refused"] = Field(
        default="", description="The same for a 412."
    )
    destination_on_foreign: Literal["overwrite", "hold"] = Field(
        default="overwrite",
        description="What is done where somebody else changed a delivered resource. overwrite: the"
        " newer version goes over it, and its status says so. hold: it is refused.",
    )
    destination_on_deleted: Literal["keep", "create"] = Field(
        default="keep",
        description="What is done where a delivered resource was deleted. keep: it stays so, and"
        " the newer version is refused. create: that creates it again.",
    )
    destination_bundle: Literal["", "none", "transaction", "batch"] = Field(
        default="",
        description="What several records that are due go in: a Bundle of PUTs. transaction: all or"
        " nothing. batch: each by itself. none: each has a request of its own. Modes put and"
        " upsert only.",
    )
    destination_bundle_entries: int | None = Field(
        default=None, ge=1, le=100, description="How many records a Bundle has at most."
    )
    destination_bundle_bytes: PositiveInt = Field(
        default=1_000_000, description="How many bytes the records of a Bundle have at most."
    )
    destination_max_attempts_per_second: PositiveFloat | None = Field(
        default=None,
        description="As UPLIFT_MAX_ATTEMPTS_PER_SECOND, for this destination alone.",
    )

    @field_validator("destination_r4", "destination_stu3", "destination_dstu2")
    @classmethod
    def _without_slash_at_end(cls, url: str) -> str:
        return url.rstrip("/")

    @field_validator("destination_tenant")
    @classmethod
    def _one_segment(cls, tenant: str) -> str:
        return tenant.strip("/")


def check_names(names: Iterable[str], known: Iterable[str], *, where: str) -> None:
    """Raise ConfigurationError if a name is not among those that are known, with the nearest."""
    known = sorted(known)
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.0)
            raise ConfigurationError(f"{where} has no setting {name}. Is it {near[0]}?")
