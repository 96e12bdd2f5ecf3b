"""Calls Uplift's API for the commands: docs/api.md over httpx.

ApiError
├── ApiUnavailable    nothing responds, or it asks again and again to come back later
├── ApiRefused        the key or the user is wrong: no other record would be accepted either
└── RecordsNotAccepted   the API does not accept the content of this request
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from uplift.cli.push.records import Record
from uplift.errors import UpliftError

_LATER = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_TRIES_OF_A_FAILURE = 3
_MAX_PAUSE_SECONDS = 15.0
_WORKING = ("queued", "sending")
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class ApiError(UpliftError):
    """A call failed; the message says what to do."""


class ApiUnavailable(ApiError):
    """Nothing responds at the API's address, or it asks again and again to come back later."""


class ApiRefused(ApiError):
    """The API refuses this key or this user."""


class RecordsNotAccepted(ApiError):
    """The API does not accept the content of this request; other records may be accepted."""


class Issue(msgspec.Struct):
    """An OperationOutcome issue."""

    severity: str = ""
    code: str = ""
    expression: list[str] = []
    diagnostics: str = ""


class Issues(msgspec.Struct):
    """The issues that are kept, and how many there were."""

    total: int = 0
    issue: list[Issue] = []


class UploadStatus(msgspec.Struct, rename="camel"):
    """The part of an upload's status that the commands use."""

    id: str
    status: str
    reason: str | None = None
    resource_type: str | None = None
    attempts: int = 0
    duplicate: bool = False
    issues: Issues | None = None
    last_response: str | None = None

    @property
    def settled(self) -> bool:
        """Whether it stays like this until somebody acts."""
        return self.status not in _WORKING


class LineProblem(msgspec.Struct):
    """Why a line of a batch became no upload."""

    status: int
    detail: str = ""

    def __str__(self) -> str:
        return f"the API responds {self.status}: {self.detail}"


class BatchLine(msgspec.Struct):
    """The result of a line of a batch: an upload or a problem."""

    line: int
    id: str | None = None
    status: str | None = None
    duplicate: bool = False
    problem: LineProblem | None = None


class _BatchResponse(msgspec.Struct):
    lines: list[BatchLine]


class UploadPage(msgspec.Struct):
    """One page of a list of uploads, and the address of the next."""

    uploads: list[UploadStatus]
    next: str | None = None


class _Problem(msgspec.Struct):
    """RFC 9457."""

    title: str = ""
    detail: str = ""


_Shape = TypeVar("_Shape")


class ApiClient:
    """Calls one Uplift API with one key. Repeats a call to a busy or restarting API.

    Args:
        url: where the API listens, for instance http://127.0.0.1:8080.
        key: an API key or a device token.
        connections: how many requests may be under way at once.
        patience: for how many seconds one call is repeated.
        first_pause: maximum of seconds before the first repetition; it doubles each time.
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
        self.url = url.rstrip("/")
        self._patience = patience
        self._first_pause = first_pause
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=_TIMEOUT,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            # The proxy of the environment is not for this machine.
            trust_env=httpx.URL(url).host not in ("127.0.0.1", "::1", "localhost"),
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def check(self, user: str) -> None:
        """Ask once whether the API responds, and knows the key and the user.

        Raises:
            ApiUnavailable: nothing responds.
            ApiRefused: wrong key or unknown user.
        """
        request = self._http.build_request("GET", "/v1/uploads", params={"user": user, "limit": 1})
        try:
            response = await self._http.send(request)
        except httpx.TransportError as error:
            raise self._unavailable(_reason_of(error)) from error
        if response.is_success:
            self._decoded(response, UploadPage)
        elif response.status_code not in _LATER:
            raise self._error(response, user)

    async def submit(
        self, user: str, records: Sequence[Record], *, force: bool = False
    ) -> list[BatchLine]:
        """`POST /v1/batches` with each record's own bytes on a line. Returns the result of each.

        Safe to repeat: the API recognises the records and responds `duplicate`.

        Raises:
            ApiUnavailable, ApiRefused.
            RecordsNotAccepted: the request as a whole; single records of it may be accepted.
        """
        body = b"".join(record.to_line() for record in records)
        response = await self._repeat(
            lambda: self._http.post(
                "/v1/batches",
                params={"user": user, **({"force": "true"} if force else {})},
                content=body,
                headers={"Content-Type": "application/x-ndjson"},
            ),
            user,
        )
        lines = self._decoded(response, _BatchResponse).lines
        if [line.line for line in lines] != list(range(1, len(records) + 1)):
            raise self._not_uplift()
        return lines

    async def upload(self, upload_id: str) -> UploadStatus:
        """`GET /v1/uploads/{id}`. Raises: ApiUnavailable, ApiRefused."""
        path = f"/v1/uploads/{quote(upload_id, safe='')}"
        return self._decoded(await self._repeat(lambda: self._http.get(path)), UploadStatus)

    def first_page(self, user: str) -> str:
        """The first page of the user's uploads."""
        return f"/v1/uploads?user={quote(user, safe='')}&order=asc&limit=500"

    async def uploads(self, page: str) -> UploadPage:
        """The uploads on `page`, in order of acceptance. Raises: ApiUnavailable, ApiRefused."""
        # Only path and query: the key must never go to another host.
        link = urlsplit(page)._replace(scheme="", netloc="").geturl()
        return self._decoded(await self._repeat(lambda: self._http.get(link)), UploadPage)

    async def _repeat(
        self, call: Callable[[], Awaitable[httpx.Response]], user: str | None = None
    ) -> httpx.Response:
        begun = time.monotonic()
        tries = 0
        while True:
            tries += 1
            at_least = 0.0
            try:
                response = await call()
            except httpx.TransportError as error:
                trouble = _reason_of(error)
            else:
                # httpx ties a response to its stream and back, and so the body that was sent
                # would stay in memory until the garbage collector comes by.
                response.stream = httpx.ByteStream(b"")
                if response.is_success:
                    return response
                failed = response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
                if response.status_code not in _LATER and not (
                    failed and tries < _TRIES_OF_A_FAILURE
                ):
                    raise self._error(response, user)
                trouble = f"it responds {response.status_code}"
                at_least = _retry_after(response)
            if time.monotonic() - begun > self._patience:
                raise self._unavailable(trouble)
            ceiling = min(self._first_pause * 2 ** min(tries - 1, 10), _MAX_PAUSE_SECONDS)
            spread = random.uniform(0, ceiling)  # noqa: S311 -- spreads calls, guards nothing
            await asyncio.sleep(at_least + spread)

    def _unavailable(self, trouble: str) -> ApiUnavailable:
        return ApiUnavailable(
            f"No Uplift API at {self.url}: {trouble}. Start it with `uplift up`, or give its "
            "address with --api or UPLIFT_API_URL."
        )

    def _error(self, response: httpx.Response, user: str | None) -> ApiError:
        problem = _problem(response)
        match response.status_code:
            case HTTPStatus.UNAUTHORIZED:
                return ApiRefused(
                    "The API does not know this key. Give a valid one with --key or UPLIFT_API_KEY."
                )
            case HTTPStatus.FORBIDDEN:
                return ApiRefused(
                    f"This key may not submit records{f' for {user}' if user else ''}: {problem}. "
                    "Use a key with the scope 'backend', or a device token of this user."
                )
            case HTTPStatus.NOT_FOUND if "problem+json" not in response.headers.get(
                "Content-Type", ""
            ):
                return self._not_uplift()
            case HTTPStatus.NOT_FOUND if user is not None:
                return ApiRefused(
                    f"Uplift has no user {user!r}. Create it first: `uplift users add {user}`, or "
                    f'POST {self.url}/v1/users with {{"appUserId": "{user}"}}.'
                )
            case HTTPStatus.NOT_FOUND:
                return ApiUnavailable(f"{self.url} has no such upload, or no longer has it.")
            case code if response.is_redirect:
                return ApiUnavailable(
                    f"{self.url} responds {code} with another address: give the API's own address "
                    "with --api."
                )
            case code:
                return RecordsNotAccepted(f"the API responds {code}: {problem}")

    def _decoded(self, response: httpx.Response, shape: type[_Shape]) -> _Shape:
        try:
            return msgspec.json.decode(response.content, type=shape)
        except msgspec.DecodeError as error:
            raise self._not_uplift() from error

    def _not_uplift(self) -> ApiUnavailable:
        return ApiUnavailable(f"The server at {self.url} is not Uplift's API: check --api.")


def _reason_of(error: httpx.TransportError) -> str:
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return "nothing listens there"
        case httpx.TimeoutException():
            return "it does not respond in time"
        case httpx.UnsupportedProtocol():
            return "the address must begin with http:// or https://"
        case _:
            return "the connection breaks"


def _problem(response: httpx.Response) -> str:
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.DecodeError:
        return response.reason_phrase
    return problem.detail or problem.title or response.reason_phrase


def _retry_after(response: httpx.Response) -> float:
    """Seconds that `Retry-After` asks for, in either of its forms (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
