"""Every setting, each with its reason. Read from the environment as `UPLIFT_<NAME>`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Days = Annotated[float, Field(ge=0, le=36525, allow_inf_nan=False)]


class Settings(BaseSettings):
    """What a deployment may choose. `.env.example` lists the same names, kept equal by a test."""

    model_config = SettingsConfigDict(
        env_prefix="UPLIFT_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    # --- where things are -------------------------------------------------------------------
    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL 15 or newer: postgresql://user:password@host/name. "
        "Unset: `uplift up` starts an embedded one.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Redis 7 or newer, or Valkey, with noeviction and AOF: redis://host:6379/0. "
        "Unset: `uplift up` starts an embedded one.",
    )
    data_dir: Path = Field(
        default=Path(".uplift"),
        description="Folder of the embedded servers' data and of all logs of `uplift up`. If unset, root's "
        "is /var/lib/uplift.",
    )
    master_keys: SecretStr | None = Field(
        default=None,
        description="Key ring that wraps every user's data key: comma-separated id:base64 of 32 "
        "bytes, the one in use first. `uplift keys master` makes one.",
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
        default="", description="The application's client id at 1upHealth."
    )
    oneup_client_secret: SecretStr = Field(
        default=SecretStr(""), description="The application's client secret at 1upHealth."
    )
    oneup_keeps_ids: bool = Field(
        default=False,
        description="Whether 1upHealth is known to store a new resource under the id it was sent "
        "with. If so, a look-up by id proves that an unknown outcome was not stored; if not, the "
        "record's identifier is searched for, and of a record without one nobody can tell.",
    )
    allow_shared_ids: bool = Field(
        default=False,
        description="Whether records of two sources may have the same type and id for one user. "
        "Where 1upHealth keeps ids they overwrite each other there; otherwise the second is "
        "refused, with reason id_collision.",
    )
    oneup_quota_calls: PositiveInt = Field(
        default=300,
        description="User-management calls that 1upHealth allows the application in each window, "
        "counted in Redis for all processes.",
    )
    oneup_quota_reserve: NonNegativeInt = Field(
        default=50,
        description="How many of these calls are kept for new users. Uploads of users whose token "
        "cannot be refreshed wait for the others.",
    )
    oneup_quota_seconds: Seconds = Field(
        default=3600.0, description="Length of that window, which slides."
    )

    # --- the door -----------------------------------------------------------------------------
    api_host: str = Field(
        default="127.0.0.1",
        description="Address the API listens on; 0.0.0.0 in a container, behind a TLS proxy.",
    )
    api_port: int = Field(default=8080, ge=0, le=65535, description="Port the API listens on.")
    max_body_bytes: PositiveInt = Field(
        default=8 * 1024 * 1024,
        description="Largest request body, and largest line of a batch, enforced while it is read.",
    )
    max_batch_lines: PositiveInt = Field(default=100_000, description="Most lines of one batch.")
    max_concurrent_batches: PositiveInt = Field(
        default=16,
        description="Batches that one API process takes in at once; others wait, then get 503.",
    )
    max_intake_bytes: PositiveInt = Field(
        default=64 * 1024 * 1024,
        description="Bytes of bodies that one API process takes in at once; others wait, then get"
        " 503. In memory the process needs several times this.",
    )
    admission_wait_seconds: Seconds = Field(
        default=10.0, description="How long a request waits for room before it gets 503."
    )
    body_idle_seconds: Seconds = Field(
        default=30.0, description="A request whose body stalls for this long gets 408."
    )
    max_wait_seconds: Seconds = Field(
        default=30.0, description="Longest ?wait= of a status request, in seconds."
    )
    rate_limit_key_records: PositiveInt = Field(
        default=100_000,
        description="Records that one API key may bring at once, to one API process; as many again"
        " come with each UPLIFT_RATE_LIMIT_SECONDS. Beyond that, 429.",
    )
    rate_limit_device_records: PositiveInt = Field(
        default=10_000, description="The same for one device token."
    )
    rate_limit_seconds: Seconds = Field(
        default=60.0, description="How long it takes until the whole of these limits is back."
    )
    max_backlog: PositiveInt = Field(
        default=1_000_000,
        description="Nothing more is accepted, but answered 503, while this many uploads are"
        " unfinished.",
    )
    max_device_token_seconds: PositiveInt = Field(
        default=24 * 3600, description="Longest life of a device token, in seconds."
    )

    max_read_back_bytes: PositiveInt = Field(
        default=16 * 1024 * 1024,
        description="Largest resource or page that is read back from 1upHealth; a larger page "
        "needs a lower _count.",
    )
    read_back_seconds: Seconds = Field(
        default=30.0,
        description="How long a read back may take in all, in seconds; after that it answers 504.",
    )

    # --- validation: what is tolerated is a warning, what is not rejects the record ----------
    tolerate_id_too_long: bool = Field(
        default=True,
        description="Ids of more than 64 characters, which Epic sends.",
    )
    tolerate_id_with_underscore: bool = Field(
        default=True,
        description="Ids with an underscore, which Cerner sends.",
    )
    tolerate_dstu2_instant_without_zone: bool = Field(
        default=True,
        description="DSTU2 instants, such as `issued`, without a time zone.",
    )
    tolerate_dstu2_missing_required: bool = Field(
        default=True,
        description="DSTU2 resources without a required element, such as Apple's own sample "
        "Condition without `patient`: 1upHealth decides.",
    )
    tolerate_missing_required: bool = Field(
        default=False,
        description="STU3 and R4 resources without a required element; 1upHealth answers such R4 "
        "with 400.",
    )
    tolerate_unknown_element: bool = Field(
        default=False,
        description="Elements that the version does not define.",
    )
    tolerate_code_outside_binding: bool = Field(
        default=False,
        description="Codes outside a required value set.",
    )
    tolerate_reference_target: bool = Field(
        default=True,
        description="References to a type of resource that the element does not allow.",
    )
    tolerate_period_reversed: bool = Field(
        default=True,
        description="Periods that end before they start.",
    )
    tolerate_narrative_not_xhtml: bool = Field(
        default=True,
        description="Narratives that are not the plain XHTML that FHIR asks for.",
    )

    second_opinion: bool = Field(
        default=True,
        description="Ask fhir.resources about what the schemas accept. It only ever warns; without"
        " it validation takes about a third of the time.",
    )

    # --- delivery -----------------------------------------------------------------------------
    max_in_flight: PositiveInt = Field(
        default=100, description="Sends in flight at once, per worker process."
    )
    max_attempts_per_second: float = Field(
        default=5000.0,
        gt=0,
        allow_inf_nan=False,
        description="Attempts a second that all workers together may begin, at the most. What "
        "1upHealth takes is found out: a 429 halves the pace, success raises it again.",
    )
    probe_seconds: Seconds = Field(
        default=5.0,
        description="While 1upHealth is away, one attempt at one upload begins each time this long "
        "has passed, and nothing else.",
    )
    local_attempts_per_second: float = Field(
        default=20.0,
        gt=0,
        allow_inf_nan=False,
        description="Attempts a second that one worker process may begin while Redis is away, so "
        "that nobody can count for all.",
    )
    max_in_flight_bytes: PositiveInt = Field(
        default=64 * 1024 * 1024,
        description="Bytes of bodies in flight at once, per worker process.",
    )
    attempt_seconds: Seconds = Field(
        default=60.0, description="Deadline of one attempt, counted from before its claim."
    )
    lease_seconds: Seconds = Field(
        default=120.0,
        description="How long a claim holds without an outcome; at least twice attempt_seconds.",
    )
    settle_seconds: Seconds = Field(
        default=60.0,
        description="Wait after an unknown outcome before 1upHealth is asked what it stored.",
    )
    index_lag_seconds: Seconds = Field(
        default=60.0,
        description="How late 1upHealth's searches may see what was stored: one that finds nothing "
        "is made again after this long, before anything is sent again.",
    )
    backoff_first_seconds: Seconds = Field(
        default=5.0, description="Ceiling of the first back-off; it doubles with each attempt."
    )
    max_backoff_seconds: Seconds = Field(default=3600.0, description="Ceiling of any back-off.")
    hold_seconds: Seconds = Field(
        default=300.0,
        description="Shortest pause after an answer that blames the deployment: 403, a redirect,"
        " 404 on create.",
    )
    give_up_seconds: Seconds = Field(
        default=72 * 3600.0, description="An upload expires this long after its first attempt."
    )
    parked_seconds: Seconds = Field(
        default=30 * 24 * 3600.0,
        description="An upload that waits for consent expires after this long.",
    )
    token_margin_seconds: Seconds = Field(
        default=600.0, description="A token is refreshed when it has less than this left."
    )
    sweep_seconds: Seconds = Field(
        default=2.0, description="Pause between two sweeps for due and abandoned uploads."
    )

    redispatch_seconds: Seconds = Field(
        default=15.0,
        description="A due upload that no worker has taken is rung for again after this long.",
    )
    max_queued_messages: PositiveInt = Field(
        default=200,
        description="No more is rung for while a queue holds this many messages already; the sweep "
        "rings later.",
    )

    # --- retention: days; 0 keeps for ever ---------------------------------------------------
    retain_delivered_days: Days = Field(
        default=30,
        description="Delivered uploads are thinned out this many days after delivery, with their "
        "attempts. What their records hold stays, so the same content is still a duplicate.",
    )
    retain_tombstones: bool = Field(
        default=True,
        description="Whether a thinned upload leaves a receipt, so that its status can still be "
        "read; if not, it answers 404.",
    )
    retain_withdrawn_days: Days = Field(
        default=30,
        description="Cancelled and superseded uploads are removed after this many days.",
    )
    retain_bodies_days: Days = Field(
        default=30,
        description="Bodies of rejected, refused and expired uploads are shredded after this many "
        "days; until then they can be redriven.",
    )
    retain_failed_days: Days = Field(
        default=365,
        description="Rejected, refused and expired uploads are removed after this many days.",
    )
    retain_batches_days: Days = Field(
        default=90,
        description="Batches are removed, with what became of their lines, this many days after "
        "their last line, once none of their uploads is left.",
    )

    # --- processes ----------------------------------------------------------------------------
    database_connections: PositiveInt = Field(
        default=8, description="PostgreSQL connections, per process."
    )
    admin_host: str = Field(default="127.0.0.1", description="Address of the operator port.")
    admin_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Operator port: /metrics for Prometheus and /healthz for health checks, without"
        " a login. Each process needs one of its own; unset: none is opened.",
    )
    log_format: Literal["json", "text"] | None = Field(
        default=None,
        description="json for collectors, or text for people. Unset: text in a terminal, else"
        " json.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )

    @field_validator("oneup_fhir_url", "oneup_token_url", "oneup_users_url")
    @classmethod
    def _without_trailing_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @model_validator(mode="after")
    def _reserve_is_a_part(self) -> "Settings":
        if self.oneup_quota_reserve >= self.oneup_quota_calls:
            raise ValueError(
                "UPLIFT_ONEUP_QUOTA_RESERVE must be less than UPLIFT_ONEUP_QUOTA_CALLS:"
                " users who are there already would get no calls at all."
            )
        return self

    @model_validator(mode="after")
    def _lease_outlasts_attempts(self) -> "Settings":
        if self.lease_seconds < 2 * self.attempt_seconds:
            raise ValueError(
                "UPLIFT_LEASE_SECONDS must be at least twice UPLIFT_ATTEMPT_SECONDS: a worker that"
                " is still sending must never lose its upload to another."
            )
        return self
