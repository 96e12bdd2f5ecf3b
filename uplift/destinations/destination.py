"""What a destination is: frozen values. `configured` makes them of the settings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

import orjson
from pydantic import SecretStr

from uplift.fhir.versions import FhirVersion

# https://hl7.org/fhir/R4/http.html#version-parameter
_PARAMETERS = {FhirVersion.DSTU2: "1.0", FhirVersion.STU3: "3.0", FhirVersion.R4: "4.0"}


class Mode(StrEnum):
    """How a record is written."""

    ONEUP = "oneup"  # POST creates, POST to the resource updates; an unknown outcome is looked up
    PUT = "put"  # PUT to an id that Uplift derives: sent twice, it is stored once
    UPSERT = "upsert"  # PUT to a search for an identifier that Uplift derives


class Subject(StrEnum):
    """What becomes of a record's references to the person."""

    AS_IS = "as_is"  # they stay
    PATIENT = "patient"  # they lead to a Patient that Uplift makes


MAX_TOGETHER = 100
"""So many records go with one request at most, however many a server takes."""


class BundleType(StrEnum):
    """In what kind of Bundle a destination takes several records at once."""

    NONE = "none"  # in none: each record has a request of its own
    TRANSACTION = "transaction"  # all or nothing
    BATCH = "batch"  # each entry by itself


class Meaning(StrEnum):
    """What a 409 or a 412 says at this destination, where no precondition was sent."""

    LOOK = "look"  # nothing by itself: a read tells
    RETRY = "retry"  # nothing was stored: send it again
    REFUSED = "refused"  # this record is never accepted as it is


class OnForeign(StrEnum):
    """What is done where somebody else's content is found in place of the delivered version."""

    OVERWRITE = "overwrite"
    HOLD = "hold"


class OnDeleted(StrEnum):
    """What is done where a delivered resource was deleted."""

    KEEP = "keep"  # it stays deleted
    CREATE = "create"  # a newer version creates it again


class ClientStyle(StrEnum):
    """Where the token endpoint wants the client's id and secret: RFC 6749, 2.3.1."""

    BASIC = "basic"
    POST = "post"


@dataclass(frozen=True, slots=True)
class NoLogin:
    """No `Authorization` is sent."""


@dataclass(frozen=True, slots=True)
class OneUpLogin:
    """A token of each person, by 1upHealth's user management."""


@dataclass(frozen=True, slots=True)
class BearerLogin:
    """A token from a file, which somebody else renews."""

    file: Path


@dataclass(frozen=True, slots=True)
class BasicLogin:
    """A user name and a password: RFC 7617."""

    user: str
    password: SecretStr


@dataclass(frozen=True, slots=True)
class ClientCredentialsLogin:
    """A token of the deployment by the client credentials grant: RFC 6749, 4.4.

    An empty `token_url` is the one that the server's `.well-known/smart-configuration` names.
    """

    token_url: str
    client_id: str
    secret: SecretStr
    scope: str = ""
    style: ClientStyle = ClientStyle.BASIC


@dataclass(frozen=True, slots=True)
class PrivateKeyLogin:
    """The same grant, for an assertion that the deployment signs: SMART Backend Services.

    `other_key_file` is in the JWKS too, and signs nothing: the next key, or the last one.
    `jwks_url` is where the server finds the JWKS, if it does. `token_url` is as above.
    """

    client_id: str
    key_file: Path
    other_key_file: Path | None = None
    jwks_url: str = ""
    token_url: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class ServiceAccountLogin:
    """A token of the deployment for a JWT that a Google service account's key signs: RFC 7523, 2.1.

    An empty `token_url` is that of the account's file.
    """

    file: Path
    scope: str
    token_url: str = ""


TokenLogin = ClientCredentialsLogin | PrivateKeyLogin | ServiceAccountLogin
"""The logins that ask a token endpoint for the deployment's token."""

Login = NoLogin | OneUpLogin | BearerLogin | BasicLogin | TokenLogin


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The files of a certificate by which the destination knows the deployment, both PEM."""

    file: Path
    key_file: Path | None = None  # in `file` too if None


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A FHIR server, and how it is spoken to.

    `bases` has the full base of each version that the server takes, without a slash at its end: a
    version without one is not taken. `tenant` is a path segment behind each base, or empty.
    `bundle_entries` is how many records one Bundle may hold, and `bundle_bytes` how many bytes.
    `{fhirVersion}` in `media_type` stands for the version of the base.
    `history` says what the server keeps of what was deleted, and how that is removed.
    """

    name: str
    bases: Mapping[FhirVersion, str]
    mode: Mode
    subject: Subject
    login: Login = field(repr=False)
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tenant: str = ""
    proxy: str = field(default="", repr=False)
    client_certificate: ClientCertificate | None = None
    on_conflict: Meaning = Meaning.REFUSED  # 409
    on_precondition: Meaning = Meaning.REFUSED  # 412
    on_foreign: OnForeign = OnForeign.OVERWRITE
    on_deleted: OnDeleted = OnDeleted.KEEP
    max_attempts_per_second: float
    bundle: BundleType = BundleType.NONE
    bundle_entries: int = 1
    bundle_bytes: int = 1_000_000
    history: str = ""

    def base(self, version: FhirVersion) -> str | None:
        """The address below which resources of that version are; None if it is not taken."""
        base = self.bases.get(version)
        return f"{base}/{self.tenant}" if base and self.tenant else base

    def media_type_of(self, version: FhirVersion) -> str:
        """The media type of what is sent to the base of that version, and wanted there."""
        return self.media_type.replace("{fhirVersion}", _PARAMETERS[version])

    @property
    def first_base(self) -> str:
        """The base of the newest version that it takes: what the server says of itself is there."""
        newest = max(self.bases, key=list(FhirVersion).index)
        return self.base(newest) or ""

    @property
    def needs_grant(self) -> bool:
        """Whether each person logs in. Otherwise the deployment does, once."""
        return isinstance(self.login, OneUpLogin)

    @property
    def derives_ids(self) -> bool:
        """Whether a record is known there by an id that Uplift derives."""
        return self.mode is not Mode.ONEUP

    @property
    def max_together(self) -> int:
        """How many records go there in one request at most."""
        return 1 if self.bundle is BundleType.NONE else min(self.bundle_entries, MAX_TOGETHER)

    @property
    def address(self) -> str:
        """What makes it this server and no other, as JSON: bases, tenant and mode.

        The ledger keeps it: under a known name, another address is another server.
        """
        bases = {version.value: base for version, base in self.bases.items()}
        known = {"bases": bases, "tenant": self.tenant, "mode": self.mode.value}
        return orjson.dumps(known, option=orjson.OPT_SORT_KEYS).decode()


class Destinations(Mapping[str, Destination]):
    """The destinations of a deployment, by their names. `default` names that of new users."""

    def __init__(self, destinations: Mapping[str, Destination], *, default: str) -> None:
        self._destinations = MappingProxyType(dict(destinations))
        self.default = default

    def __getitem__(self, name: str) -> Destination:
        return self._destinations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._destinations)

    def __len__(self) -> int:
        return len(self._destinations)

    @property
    def derive_ids(self) -> bool:
        """Whether any of them needs the id key."""
        return any(each.derives_ids for each in self.values())
