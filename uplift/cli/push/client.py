"""`uplift.client` for the commands: its errors say to a person what to do.

ApiError
├── ApiUnavailable    nothing responds, or it asks again and again to come back later
└── ApiRefused        the key or the user is wrong: no record would be accepted
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from uplift import client
from uplift.cli.push.network import Transport, api_address, clean_key
from uplift.client import calls
from uplift.client.messages import Call, Page
from uplift.errors import UpliftError

UploadPage = Page[client.Upload]


class ApiError(UpliftError):
    """A call failed; the message says what to do."""


class ApiUnavailable(ApiError):
    """Nothing responds at the API's address, or it asks again and again to come back later."""


class ApiRefused(ApiError):
    """The API refuses this key or this user."""


class ApiClient:
    """Calls one Uplift API with one key. Repeats a call to a busy or restarting API.

    Args:
        url: where the API listens, for instance http://127.0.0.1:8080.
        key: an API key or a device token.
        connections: how many requests may be under way at once.
        patience: for how many seconds one call is repeated.
        first_pause: maximum of seconds before the first repetition; it doubles each time.

    Raises:
        NetworkError: the address, the key or a setting of the network is wrong.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        connections: int = 4,
        patience: float = 120.0,
        first_pause: float = 0.5,
    ) -> None:
        address = api_address(url, allow_http=True)
        self.url = url.strip().rstrip("/")
        self._transport = Transport(address, connections=connections)
        self._client = client.AsyncUplift(
            self.url,
            clean_key(key),
            connections=connections,
            patience=patience,
            first_pause=first_pause,
            transport=self._transport,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def check(self, user: str) -> None:
        """Ask once whether the API responds, and knows the key and the user.

        Raises:
            ApiUnavailable: nothing responds.
            ApiRefused: wrong key or unknown user.
        """
        with self._told(user), suppress(client.TryLater):
            await self._client.call(calls.uploads(user=user, limit=1), patience=0)

    async def submit(
        self, user: str, records: Sequence[client.Record]
    ) -> list[client.RecordResult]:
        """The result of each record. Safe to repeat. Raises: ApiUnavailable, ApiRefused."""
        with self._told(user):
            return await self._client.submit_batch(records, user=user)

    async def upload(self, upload_id: str) -> client.Upload:
        """The status of an upload. Raises: ApiUnavailable, ApiRefused."""
        with self._told():
            return await self._client.upload(upload_id)

    def first_page(self, user: str) -> Call[UploadPage]:
        """The first page of the user's uploads."""
        return calls.uploads(user=user, order="asc", limit=500)

    async def uploads(self, page: Call[UploadPage]) -> UploadPage:
        """The uploads on `page`, in order of acceptance. Raises: ApiUnavailable, ApiRefused."""
        with self._told():
            return await self._client.call(page)

    @contextmanager
    def _told(self, user: str | None = None) -> Iterator[None]:
        try:
            yield
        except client.CallError as error:
            raise self._error(error, user) from error

    def _error(self, error: client.CallError, user: str | None) -> ApiError:
        match error:
            case client.NoAnswer():
                return self._unavailable(self._transport.trouble or error.reason)
            case client.TryLater():
                return self._unavailable(f"it responds {error.status}")
            case client.NotUplift():
                return ApiUnavailable(
                    f"The server at {self.url} is not Uplift's API, or leads to another address:"
                    " check --api."
                )
            case client.NotAuthenticated():
                return ApiRefused(
                    "The API does not know this key. Give a valid one with --key or UPLIFT_API_KEY."
                )
            case client.NotAllowed():
                return ApiRefused(
                    f"This key may not submit records{f' for {user}' if user else ''}:"
                    f" {error.detail or error.title}. Use a key with the scope 'submit', or a"
                    " device token of this user."
                )
            case client.NotFound() if user is not None:
                return ApiRefused(
                    f"Uplift has no user {user!r}. Create it first: `uplift users add {user}`, or "
                    f'POST {self.url}/v1/users with {{"appUserId": "{user}"}}.'
                )
            case client.NotFound():
                return ApiUnavailable(f"{self.url} has no such upload, or no longer has it.")
            case _:
                return ApiError(f"The API responds {error}")

    def _unavailable(self, trouble: str) -> ApiUnavailable:
        return ApiUnavailable(
            f"No Uplift API at {self.url}: {trouble}. Start it with `uplift up`, or give its "
            "address with --api or UPLIFT_API_URL."
        )
