"""Every setting, with its description. Read from the environment as `UPLIFT_<NAME>`.

A secret may be in a file instead, which `UPLIFT_<NAME>_FILE` names.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from uplift.destination_settings import PREFIX, DestinationSettings, check_names
from uplift.errors import ConfigurationError
from uplift.secret_files import read_secret

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Days = Annotated[float, Field(ge=0, le=36525, allow_inf_nan=False)]

# As a browser writes it in the header Origin (RFC 6454, 6.2).
_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+", re.ASCII)


class Settings(DestinationSettings, BaseSettings):
    """What a deployment may choose. `.env.example` is made from it; a test keeps them equal.

    The settings of one destination are in `uplift.destination_settings`.
    """

    model_config = SettingsConfigDict(
        env_prefix="UPLIFT_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    # --- PostgreSQL, Redis, keys --------------------------------------------------------------
    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL 15 or newer: postgresql://user:password@host/name, or with several "
        "hosts postgresql://user:password@/name?host=a:5432&host=b:5432; the one that can be "
        "written is used. If it is not set, `uplift up` starts an embedded one.",
    )
    migration_database_url: SecretStr | None = Field(
        default=None,
        description="The same database as the role that owns it, for `uplift migrate` alone. If it "
        "is not set, `uplift migrate` uses UPLIFT_DATABASE_URL.",
    )
    database_connections: PositiveInt = Field(
        default=8, description="Connections to PostgreSQL of each process."
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Redis 7 or newer, or Valkey, with noeviction and AOF: redis://host:6379/0. If "
        "it is not set, `uplift up` starts an embedded one.",
    )
    data_dir: Path = Field(
        default=Path(".uplift"),
        description="Folder of the embedded servers' data and of all logs of `uplift up`. If unset,"
        " root's is /var/lib/uplift.",
    )
    master_keys: SecretStr | None = Field(
        default=None,
        description="Key ring of the master keys, which wrap the data key of every user: "
        "comma-separated id:base64 of 32 bytes, the one in use first. `uplift keys master` makes "
        "one.",
    )
    master_keys_dir: Path | None = Field(
        default=None,
        description="In place of UPLIFT_MASTER_KEYS: a folder with a file for each master key, and "
        "the file in_use with the name of the one in use. Running processes notice a change.",
    )
    master_key_rotation_days: Days = Field(
        default=90,
        gt=0,
        description="Rotation period: a master key is in use for this many days. Then doctor and an"
        " alert say that it is due.",
    )
    backups_kept_days: Days | None = Field(
        default=None,
        description="Age of the oldest backup of PostgreSQL that you keep, in days. Without it, "
        "`uplift keys retire` refuses, and erasing a user names no date.",
    )

    id_key: SecretStr | None = Field(
        default=None,
        description="Key of the ids that records have at destinations other than 1upHealth: base64"
        " of 32 bytes. `uplift keys id` makes one. Set it once, never change it, and keep it"
        " outside the ledger too: with another key, every record would be stored a second time.",
    )

    # --- destinations -------------------------------------------------------------------------
    destination: str = Field(
        default="oneup",
        min_length=1,
        description="Where the records of new users go: the name of a table of"
        " UPLIFT_DESTINATIONS_FILE, or without that file a preset (oneup, hapi), to which the"
        " settings UPLIFT_DESTINATION_… belong.",
    )
    destinations_file: Path | None = Field(
        default=None,
        description="A TOML file of several destinations, each a table: the keys are those of"
        " UPLIFT_DESTINATION_…, in lower case and without that prefix. A secret is the path of a"
        " file: client_secret_file. docs/destinations/README.md has an example.",
    )

    # --- 1upHealth ----------------------------------------------------------------------------
    oneup_fhir_url: str = Field(
        default="https://api.1up.health",
        description="FHIR base; the version and the type are appended. Older applications use "
        "https://api.1up.health/fhir.",
    )
    oneup_token_url: str = Field(
        default="https://auth.1up.health/oauth2/token",
        description="OAuth 2.0 token endpoint. Older applications use "
        "https://api.1up.health/fhir/oauth2/token.",
    )
    oneup_users_url: str = Field(
        default="https://api.1up.health/user-management/v1/user",
        description="User management; /auth-code is appended for new codes.",
    )
    oneup_client_id: str = Field(
        default="", description="Client id of the application at 1upHealth."
    )
    oneup_client_secret: SecretStr = Field(
        default=SecretStr(""), description="Client secret of the application at 1upHealth."
    )
    oneup_keeps_ids: bool = Field(
        default=False,
        description="Whether 1upHealth stores a new resource under the id that it was sent with. If"
        " true, a look-up by id proves that an unknown outcome was not stored. If false, the "
        "look-up searches for the record's identifier; for a record without one, nobody can tell.",
    )
    allow_shared_ids: bool = Field(
        default=False,
        description="Whether the records of two sources may have the same type and id for one user."
        " If true, they overwrite each other where 1upHealth keeps ids. If false, the second is "
        "refused with the reason id_collision.",
    )
    oneup_quota_calls: PositiveInt = Field(
        default=300,
        description="User-management calls that 1upHealth allows the application in each period. "
        "Redis counts them for all processes.",
    )
    oneup_quota_seconds: Seconds = Field(
        default=3600.0, description="Length of that period, which slides."
    )
    oneup_quota_reserve: NonNegativeInt = Field(
        default=50,
        description="How many of these calls are only for new users. The others are for users whose"
        " token cannot be refreshed.",
    )

    # --- the API ------------------------------------------------------------------------------
    api_host: str = Field(
        default="127.0.0.1",
        description="Address of the API. In a container, use 0.0.0.0 behind a TLS proxy.",
    )
    api_port: int = Field(default=8080, ge=0, le=65535, description="Port of the API.")
    api_public_url: str = Field(
        default="",
        description="The address at which callers reach the API, such as"
        " https://uplift.example.com. It begins the links of read-back pages. Empty: as each"
        " request names it.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose pages in a browser may call the API (CORS), such as "
        "https://app.example.org, comma-separated. If it is empty, no other page may.",
    )
    api_max_connections: PositiveInt = Field(
        default=2000,
        description="Connections that one API process keeps open. For one more, it closes the"
        " longest idle one.",
    )
    api_idle_seconds: Seconds = Field(
        default=75.0,
        description="How long the API keeps an idle connection open. It must be longer than the"
        " proxy keeps it (nginx and most load balancers: 60 seconds).",
    )
    api_head_seconds: Seconds = Field(
        default=10.0, description="How long the head of a request may take to arrive."
    )
    drain_seconds: NonNegativeFloat = Field(
        default=5.0,
        le=15,
        description="After SIGTERM the API is not ready, and listens on for this long. A load"
        " balancer needs this time to see that; without one, use 0.",
    )
    max_body_bytes: PositiveInt = Field(
        default=8 * 1024 * 1024,
        description="Largest request body, and largest line of a batch.",
    )
    max_batch_lines: PositiveInt = Field(
        default=100_000, description="Largest number of lines in one batch."
    )
    max_batch_bytes: PositiveInt = Field(
        default=1024 * 1024 * 1024, description="Largest body of a batch of NDJSON."
    )
    max_json_values: PositiveInt = Field(
        default=400_000,
        description="Largest number of JSON values in one body, or in one line of a batch. Each "
        "becomes an object in memory.",
    )
    max_concurrent_requests: PositiveInt = Field(
        default=64,
        description="Requests that one API process works on at once; of large lists, one. "
        "Credentials share this fairly: one API key alone gets nearly all, a device token an "
        "eighth.",
    )
    max_concurrent_batches: PositiveInt = Field(
        default=16,
        description="Batches that one API process accepts at once, shared in the same way. Others "
        "wait, then get 503.",
    )
    max_concurrent_read_backs: PositiveInt = Field(
        default=16,
        description="Read backs from destinations of one API process at once, shared in the same "
        "way. Each may need twice UPLIFT_MAX_READ_BACK_BYTES of memory.",
    )
    max_long_polls: PositiveInt = Field(
        default=2000,
        description="Long polls of one API process at once, shared in the same way. More get 503.",
    )
    max_intake_bytes: PositiveInt = Field(
        default=64 * 1024 * 1024,
        description="Bytes of bodies that one API process has received and not yet accepted, shared"
        " in the same way. Others wait, then get 503. One body may come on top. The process needs "
        "several times this memory.",
    )
    admission_wait_seconds: Seconds = Field(
        default=10.0, description="How long a request waits for admission before it gets 503."
    )
    body_idle_seconds: Seconds = Field(
        default=30.0, description="A request gets 408 if its body stalls for this long."
    )
    min_body_bytes_per_second: PositiveInt = Field(
        default=1024,
        description="A request gets 408 if its body is slower than this on average, beyond "
        "UPLIFT_BODY_IDLE_SECONDS.",
    )
    max_wait_seconds: Seconds = Field(
        default=30.0, description="Longest long poll: the largest ?wait= of a status request."
    )
    max_backlog: PositiveInt = Field(
        default=1_000_000,
        description="Uploads get 503 while this many wait to be sent (back pressure).",
    )
    max_backlog_bytes: PositiveInt = Field(
        default=64 * 1024**3,
        description="The same for the bytes of their bodies.",
    )
    max_user_backlog: PositiveInt = Field(
        default=200_000,
        description="A user's uploads get 429 while this many of theirs are parked, or, from four"
        " fifths of UPLIFT_MAX_BACKLOG on, wait to be sent or are parked.",
    )
    max_user_backlog_bytes: PositiveInt = Field(
        default=4 * 1024**3,
        description="The same for the bytes of their bodies.",
    )
    rate_limit_key_records: PositiveInt = Field(
        default=100_000,
        description="Rate limit of one API key: records that one API process accepts in each "
        "UPLIFT_RATE_LIMIT_SECONDS. More get 429.",
    )
    rate_limit_device_records: PositiveInt = Field(
        default=10_000, description="The same for one device token."
    )
    rate_limit_device_bytes: PositiveInt = Field(
        default=256 * 1024 * 1024,
        description="The same for the bytes of its bodies, unpacked.",
    )
    rate_limit_seconds: Seconds = Field(
        default=60.0, description="How long a spent rate limit needs to be whole again."
    )
    max_device_token_seconds: PositiveInt = Field(
        default=24 * 3600, description="Longest life of a device token."
    )
    max_read_back_bytes: PositiveInt = Field(
        default=16 * 1024 * 1024,
        description="Largest resource or page that is read back from a destination. A larger page"
        " needs a lower _count.",
    )
    read_back_seconds: Seconds = Field(
        default=30.0, description="Time limit of a read back; after it, the API answers 504."
    )

    # --- validation: a tolerated finding is a warning, any other rejects the record -----------
    tolerances: Literal["strict", "default", "lenient"] = Field(
        default="default",
        description="Which deviations from FHIR are tolerated: strict none, default those that real"
        " systems send and a reader still understands, lenient all that docs/validation.md lists.",
    )
    tolerance_overrides: str = Field(
        default="",
        description="Single deviations that differ from UPLIFT_TOLERANCES: kind=warning or"
        " kind=error, comma-separated, such as unknown_element=warning. docs/validation.md lists "
        "the kinds.",
    )
    max_resource_values: PositiveInt = Field(
        default=100_000,
        description="A resource with more JSON values, or more tags, attributes and entities in its"
        " narratives, is not validated: its upload is rejected with the reason too_complex. Up to "
        "the default, validation takes less than 200 MB and 2 s whatever the body is. After you "
        "raise it, redrive these uploads.",
    )
    second_opinion: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="The share of the records that pass the schemas which fhir.resources checks,"
        " too. It only warns. At 0, validation takes about a third of the time.",
    )

    # --- delivery -----------------------------------------------------------------------------
    max_in_flight: PositiveInt = Field(
        default=100, description="In-flight limit: uploads that one worker process sends at once."
    )
    max_in_flight_bytes: PositiveInt | None = Field(
        default=None,
        description="Bytes of bodies that one worker process sends at once. A larger body is sent "
        "alone. If it is not set: a twelfth of the memory that the process may use beyond 200 MB, "
        "by its cgroup or the machine, and 64 MB at most.",
    )
    max_attempts_per_second: float = Field(
        default=5000.0,
        gt=0,
        allow_inf_nan=False,
        description="Highest limit of the rate limiter: attempts per second of all workers "
        "together. The limiter finds out how many a destination takes: a 429 halves its limit, "
        "and success raises it again.",
    )
    local_attempts_per_second: float = Field(
        default=20.0,
        gt=0,
        allow_inf_nan=False,
        description="Attempts per second of each worker process while Redis is away, which counts "
        "for all.",
    )
    probe_seconds: Seconds = Field(
        default=5.0,
        description="Time between two probes while a destination is away. A probe is one attempt, "
        "and nothing else is sent.",
    )
    attempt_seconds: Seconds = Field(
        default=60.0, description="Time limit of one attempt, from before its claim."
    )
    lease_seconds: Seconds = Field(
        default=120.0,
        description="Length of a lease: how long a worker has an upload that it claimed. At least "
        "twice UPLIFT_ATTEMPT_SECONDS.",
    )
    max_silence_seconds: Seconds = Field(
        default=15.0,
        description="Longest silence of a worker process. Its heartbeats are in the ledger, one in"
        " each fifth of this time. When it is silent for longer, its uploads are taken from it."
        " Before, after two thirds, it sends nothing more.",
    )
    settle_seconds: Seconds = Field(
        default=60.0,
        description="Wait after an unknown outcome, before a look-up or a newer version.",
    )
    reference_wait_seconds: NonNegativeFloat = Field(
        default=60.0,
        description="Where records have derived ids: how long a record waits for one of the same"
        " source that it refers to and that is not delivered yet. After it, it goes with the"
        " other's identifier in place of a reference.",
    )
    index_lag_seconds: Seconds = Field(
        default=60.0,
        description="How long a destination may need until a search finds a new resource. An empty "
        "search is repeated after this time, before the upload is sent again.",
    )
    backoff_first_seconds: Seconds = Field(
        default=5.0, description="Longest first backoff; it doubles with each attempt."
    )
    max_backoff_seconds: Seconds = Field(default=3600.0, description="Longest backoff of all.")
    hold_seconds: Seconds = Field(
        default=300.0,
        description="Shortest wait of a held upload: the response blames the deployment (403, a"
        " redirect, or 404 on create).",
    )
    give_up_seconds: Seconds = Field(
        default=72 * 3600.0, description="An upload expires this long after its first attempt."
    )
    parked_seconds: Seconds = Field(
        default=30 * 24 * 3600.0,
        description="A parked upload, which waits for consent, expires after this time.",
    )
    token_margin_seconds: Seconds = Field(
        default=600.0, description="A token is refreshed when it is valid for less than this time."
    )

    process_id: UUID | None = Field(
        default=None,
        description="Name of a worker process in the ledger, for its supervisor: a new UUID at each"
        " start. When the process has ended, the supervisor runs `uplift process-ended` with it:"
        " then nobody waits for what it might still send. If it is not set, the process chooses"
        " one.",
    )

    # --- dispatch and sweep -------------------------------------------------------------------
    sweep_seconds: Seconds = Field(
        default=2.0,
        description="Pause between two sweeps, which look for due uploads and expired leases, and "
        "dispatch again what no worker has claimed.",
    )
    max_queued_messages: PositiveInt = Field(
        default=200,
        description="Nothing is dispatched to a queue that has this many messages; the sweep does "
        "it later.",
    )

    # --- retention: days; 0 keeps for ever ---------------------------------------------------
    retain_delivered_days: Days = Field(
        default=30,
        description="Delivered uploads are thinned this many days after delivery; 0 keeps them. "
        "Their attempts go. What identifies a record stays: the same content is still a duplicate.",
    )
    retain_tombstones: bool = Field(
        default=True,
        description="Whether a thinned upload leaves a tombstone, so that its status can still be "
        "read. If false, the status answers 404.",
    )
    retain_withdrawn_days: Days = Field(
        default=30,
        description="Cancelled and superseded uploads are removed after this many days; 0 keeps "
        "them.",
    )
    retain_bodies_days: Days = Field(
        default=30,
        description="Bodies of rejected, refused and expired uploads are shredded after this many "
        "days; 0 keeps them. Until then, the uploads can be redriven.",
    )
    retain_failed_days: Days = Field(
        default=365,
        description="Rejected, refused and expired uploads are removed after this many days; 0 "
        "keeps them.",
    )
    retain_batches_days: Days = Field(
        default=90,
        description="Batches and their lines are removed this many days after their last line, when"
        " none of their uploads is left; 0 keeps them.",
    )

    # --- erasing ------------------------------------------------------------------------------
    erase_upstream_days: Days = Field(
        default=30,
        description="For how many days an erasure with upstream=delete is tried. Then the user is "
        "erased here, whatever is left there; 0 tries for ever.",
    )

    # --- admin port and logs ------------------------------------------------------------------
    admin_host: str = Field(default="127.0.0.1", description="Address of the admin port.")
    admin_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Admin port: /metrics for Prometheus and /healthz for health checks, without a"
        " login. Each process needs a port of its own. If it is not set, none is opened.",
    )
    log_format: Literal["json", "text"] | None = Field(
        default=None,
        description="json for collectors, text for people. If it is not set: text in a terminal, "
        "otherwise json.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged."
    )

    # --- traces -------------------------------------------------------------------------------
    traces_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="Where traces are sent: the address of an OpenTelemetry collector for OTLP over"
        " HTTP, such as http://127.0.0.1:4318/v1/traces. It needs uplift[traces]. If it is not set,"
        " nothing is traced.",
    )
    traces_share: float = Field(
        default=1.0, ge=0, le=1, description="The share of all traces that is sent, from 0 to 1."
    )

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        found = dict(values)
        for name, variable in secrets().items():
            try:
                secret = read_secret(variable, os.environ)
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
            if secret is not None:
                found.setdefault(name, secret)
        return found

    @field_validator("api_public_url", "oneup_fhir_url", "oneup_token_url", "oneup_users_url")
    @classmethod
    def _without_trailing_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @model_validator(mode="after")
    def _destination_settings_are_known(self) -> "Settings":
        start = f"UPLIFT_{PREFIX.upper()}"
        known = {f"UPLIFT_{name.upper()}" for name in DestinationSettings.model_fields}
        known |= {f"{variable}_FILE" for variable in secrets().values()}
        given = [name for name, value in os.environ.items() if name.startswith(start) and value]
        try:
            check_names(given, known, where="The environment")
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        if self.destinations_file is not None and given:
            raise ValueError(
                f"UPLIFT_DESTINATIONS_FILE and {given[0]} are both set. Write the setting into a"
                " table of the file."
            )
        return self

    @field_validator("cors_origins")
    @classmethod
    def _only_origins(cls, text: str) -> str:
        origins = [each.strip() for each in text.split(",") if each.strip()]
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    "UPLIFT_CORS_ORIGINS must be a list of origins: https://host or"
                    " https://host:port, in lower case, without a path and without *."
                )
        return ",".join(origins)

    @model_validator(mode="after")
    def _reserve_is_a_part(self) -> "Settings":
        if self.oneup_quota_reserve >= self.oneup_quota_calls:
            raise ValueError(
                "UPLIFT_ONEUP_QUOTA_RESERVE must be less than UPLIFT_ONEUP_QUOTA_CALLS."
                " Otherwise no call is left for users who are not new."
            )
        return self

    @model_validator(mode="after")
    def _lease_outlasts_attempts(self) -> "Settings":
        if self.lease_seconds < 2 * self.attempt_seconds:
            raise ValueError(
                "UPLIFT_LEASE_SECONDS must be at least twice UPLIFT_ATTEMPT_SECONDS. Otherwise a"
                " worker may lose an upload to another worker while it still sends it."
            )
        return self

    @property
    def longest_settling_seconds(self) -> float:
        """How long an upload waits at most after an unknown outcome, unless its backoff is
        longer."""
        return 2 * max(self.settle_seconds, self.index_lag_seconds) + self.attempt_seconds


def secrets() -> dict[str, str]:
    """The settings that are secrets, each with the name of its variable."""
    return {
        name: f"UPLIFT_{name.upper()}"
        for name, field in Settings.model_fields.items()
        if field.annotation in (SecretStr, SecretStr | None)
    }
