"""What a sandbox assumes where the behaviour of 1upHealth is not documented."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from uplift.sandbox.servers.profile import Auth, Profile
from uplift.sandbox.servers.profiles import PROFILES


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """Choices for one sandbox. The defaults are the documented or the likelier behaviour."""

    ids: Literal["kept", "assigned"] = "kept"
    """Whether a new resource is stored under the id it came with, or under one of the server's."""

    like: str | None = None
    """A server to be like: `oneup-recorded` is 1upHealth as its recorded responses are, the others
    are those of `PROFILES`."""

    auth: Auth | None = None
    """How the deployment logs in at one of `PROFILES`: not at all, by the client's id and secret,
    by the secret as a bearer token, or by a token from `/oauth2/token`: for id and secret, for an
    assertion that a key of `jwks` signed, or for one of `service_account`. None: as its row says.
    """

    jwks: Path | None = None
    """The client's public keys, with `auth="private_key_jwt"`. Read for each request."""

    service_account: Path | None = None
    """The file of the service account, with `auth="jwt_bearer"`. Read for each request."""

    search_cache_seconds: float = 60.0
    """How long a search of HAPI gives what it gave before, in seconds."""

    state_file: Path | None = None
    """Where users, tokens and resources are kept, sealed; in memory alone without it."""

    state_key: str = field(default="", repr=False)
    """The key of that file: 32 bytes in hexadecimal digits."""

    control_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    """What opens the control API. Records can be read there."""

    show_bytes: bool = False
    """Whether the control API shows records as they came."""

    client_id: str = "sandbox-client"
    client_secret: str = "sandbox-secret"  # noqa: S105 - it guards nothing

    token_seconds: int = 7200
    """`expires_in` of an access token, in seconds."""

    code_seconds: float = 7200.0
    """How long an authorization code lives, in seconds."""

    code_delay_seconds: float = 0.0
    """How long a fresh code is refused before it becomes valid, in seconds."""

    quota_calls: int = 300
    """User-management calls in one period before the response is 429."""

    quota_seconds: float = 3600.0
    """Length of that sliding period, in seconds."""

    existing_user_status: int = 400
    """Status of creating a user who exists: 200 and 400 have both been seen."""

    unknown_user_status: int = 400
    """Status of an auth-code for nobody: 400 and 404 have both been seen."""

    create_status: int = 201
    """Status of a create: 200 is documented, 201 has been seen."""

    location_headers: bool = True
    """Whether creates and updates respond with `Location` and `ETag`."""

    update_creates: bool = False
    """Whether an update of an unknown id creates it; otherwise the response is 404."""

    index_lag_seconds: float = 0.0
    """How long after a write a search does not see it, in seconds."""

    request_log: int = 500_000
    """How many of the latest requests are kept in the log."""

    @property
    def keeps_ids(self) -> bool:
        """Whether new resources keep the id that they came with."""
        return self.ids == "kept" and self.like is None

    @property
    def profile(self) -> Profile | None:
        """The server that it is like; None if that is 1upHealth."""
        return PROFILES.get(self.like or "")

    @property
    def login(self) -> Auth:
        """How the deployment logs in at that server."""
        return self.auth or (self.profile.auth if self.profile else "none")
