"""The destinations of a process, each with its client and its login."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx
import redis.asyncio

from uplift.destinations.client import FhirClient
from uplift.destinations.destination import (
    BasicLogin,
    BearerLogin,
    ClientCredentialsLogin,
    Destination,
    Destinations,
    NoLogin,
    OneUpLogin,
    PrivateKeyLogin,
    ServiceAccountLogin,
    TokenLogin,
)
from uplift.destinations.http_client import open_http
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.tokens.access import TokenAccess
from uplift.tokens.ask_for_token import ask_for_token
from uplift.tokens.login_keys import check_keys
from uplift.tokens.logins import Access, DeploymentAccess, FileLogin, FixedLogin, LoginSource
from uplift.tokens.shared_token import SharedToken


@dataclass(frozen=True, slots=True)
class Channel:
    """A destination, the client that speaks to it, and how it is logged in to."""

    destination: Destination
    fhir: FhirClient
    access: Access


class Channels(Mapping[str, Channel]):
    """The channels of a process, by their destinations' names.

    A destination has connections of its own, some more than sends, so that no other waits for
    them and a token refresh never does. Build it on the running loop.

    Raises ConfigurationError for a certificate or a key file that cannot be used.
    """

    def __init__(
        self,
        destinations: Destinations,
        grants: TokenAccess,
        redis_client: "redis.asyncio.Redis",
        key_ring: KeyRing,
        settings: Settings,
    ) -> None:
        self._clients: list[httpx.AsyncClient] = []
        self._channels: dict[str, Channel] = {}
        check_keys(destinations)
        for name, destination in destinations.items():
            http = open_http(
                connections=settings.max_in_flight + 10,
                proxy=destination.proxy,
                certificate=destination.client_certificate,
            )
            self._clients.append(http)
            fhir = FhirClient(http, destination, settings)
            access: Access = grants
            if (source := login_source(destination, http, redis_client, key_ring)) is not None:
                access = DeploymentAccess(source)
            self._channels[name] = Channel(destination, fhir, access)

    def __getitem__(self, name: str) -> Channel:
        return self._channels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    def __len__(self) -> int:
        return len(self._channels)

    async def close(self) -> None:
        """Wait for what is under way, and close all connections."""
        for channel in self._channels.values():
            await channel.access.close()
        for http in self._clients:
            await http.aclose()


def login_source(
    destination: Destination,
    http: httpx.AsyncClient,
    redis_client: "redis.asyncio.Redis",
    key_ring: KeyRing,
) -> LoginSource | None:
    """What gives the deployment's token at a destination; None where each person has one."""
    match destination.login:
        case OneUpLogin():
            return None
        case NoLogin():
            return FixedLogin()
        case BasicLogin() as login:
            return FixedLogin.basic(login)
        case BearerLogin(file):
            return FileLogin(file)
        case ClientCredentialsLogin() | PrivateKeyLogin() | ServiceAccountLogin() as login:
            base = destination.first_base
            return SharedToken(
                whose_token(destination.name, login, base),
                lambda now: ask_for_token(http, login, base, now=now),
                redis_client,
                key_ring,
            )


def whose_token(name: str, login: TokenLogin, base: str) -> tuple[str, ...]:
    """What a deployment's token is good for. With another of these it is another token."""
    where = login.token_url or base
    match login:
        case ClientCredentialsLogin():
            return (name, where, login.client_id, login.scope)
        case PrivateKeyLogin():
            return (name, where, login.client_id, login.scope, "private_key_jwt")
        case ServiceAccountLogin():
            return (name, where, str(login.file), login.scope, "jwt_bearer")
