"""Uplift's own API, as its commands call it: docs/api.md over httpx.

ApiError
├── ApiUnavailable    nothing answers, or it keeps asking to come back later
├── ApiRefused        the key or the user is wrong: no other record would fare better
└── RecordsNotTaken   the API does not take what was in this request
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
_PAUSE_MOST_SECONDS = 15.0
_WORKING = ("queued", "sending")
_WORKING = ("queued", "sending")
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class ApiError(UpliftError):
    """A call did not do what it should; the message says what to do."""


class ApiUnavailable(ApiError):
    """Nothing answers at the API's address, or it keeps asking to come back later."""


class ApiRefused(ApiError):
    """The API refuses this key or this user."""


class RecordsNotTaken(ApiError):
    """The API does not take what was in this request; other records may be fine."""


class Issue(msgspec.Struct):
    """An OperationOutcome issue."""

    severity: str = ""
    code: str = ""
    expression: list[str] = []
    diagnostics: str = ""


class Issues(msgspec.Struct):
    """The issues kept, and how many there were."""

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
        """Whether nothing more will happen by itself."""
        return self.status not in _WORKING


class LineProblem(msgspec.Struct):
    """Why a line of a batch is no upload."""

    status: int
    detail: str = ""

    def __str__(self) -> str:
        return f"the API answers {self.status}: {self.detail}"


class BatchLine(msgspec.Struct):
    """What became of a line of a batch: the upload that it is, or a problem."""

    line: int
    id: str | None = None
    status: str | None = None
    duplicate: bool = False
    problem: LineProblem | None = None


class _BatchReceipt(msgspec.Struct):
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
    """Calls one Uplift API with one key, patiently: a busy or restarting API is asked again.

    Args:
        url: where the API listens, for instance http://127.0.0.1:8080.
        key: an API key or a device token.
        connections: how many requests may be under way at once.
        patience: seconds that one call goes on trying.
        first_pause: seconds before the first repetition, at most; it doubles.
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
            # A proxy of the environment does not lead to this machine.
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
        """Ask once, without patience, whether the API answers and knows the key and the user.

        Raises:
            ApiUnavailable: nothing answers.
            ApiRefused: wrong key or unknown user.
        """
        request = self._http.build_request("GET", "/v1/uploads", params={"user": user, "limit": 1})
        try:
            response = await self._http.send(request)
        except httpx.TransportError as error:
            raise self._unavailable(_told(error)) from error
        if response.is_success:
            self._decoded(response, UploadPage)
        elif response.status_code not in _LATER:
            raise self._error(response, user)

    async def submit(self, user: str, records: Sequence[Record]) -> list[BatchLine]:
        """`POST /v1/batches` with each record's own bytes on a line; what became of each.

        Safe to repeat: the API knows the records again and answers `duplicate`.

        Raises:
            ApiUnavailable, ApiRefused.
            RecordsNotTaken: of the request as a whole; each record alone may fare better.
        """
        body = b"".join(record.to_line() for record in records)
        response = await self._patiently(
            lambda: self._http.post(
                "/v1/batches",
                params={"user": user},
                content=body,
                headers={"Content-Type": "application/x-ndjson"},
            ),
            user,
        )
        lines = self._decoded(response, _BatchReceipt).lines
        if [line.line for line in lines] != list(range(1, len(records) + 1)):
            raise self._stranger()
        return lines

    async def upload(self, upload_id: str) -> UploadStatus:
        """`GET /v1/uploads/{id}`. Raises: ApiUnavailable, ApiRefused."""
        path = f"/v1/uploads/{quote(upload_id, safe='')}"
        return self._decoded(await self._patiently(lambda: self._http.get(path)), UploadStatus)

    def first_page(self, user: str) -> str:
        """The first page of the user's uploads."""
        return f"/v1/uploads?user={quote(user, safe='')}&limit=500"

    async def uploads(self, page: str) -> UploadPage:
        """The uploads on `page`, in order of acceptance. Raises: ApiUnavailable, ApiRefused."""
        # Only path and query: the key must not follow a link to another host.
        link = urlsplit(page)._replace(scheme="", netloc="").geturl()
        return self._decoded(await self._patiently(lambda: self._http.get(link)), UploadPage)

    async def _patiently(
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
                trouble = _told(error)
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
                trouble = f"it answers {response.status_code}"
                at_least = _retry_after(response)
            if time.monotonic() - begun > self._patience:
                raise self._unavailable(trouble)
            ceiling = min(self._first_pause * 2 ** min(tries - 1, 10), _PAUSE_MOST_SECONDS)
            spread = random.uniform(0, ceiling)  # noqa: S311 -- spreads calls, guards nothing
            await asyncio.sleep(at_least + spread)

    def _unavailable(self, trouble: str) -> ApiUnavailable:
        return ApiUnavailable(
            f"No Uplift API at {self.url}: {trouble}. Start it with `uplift up`, or give its "
            "address with --api or UPLIFT_API_URL."
        )

    def _error(self, response: httpx.Response, user: str | None) -> ApiError:
        told = _problem(response)
        match response.status_code:
            case HTTPStatus.UNAUTHORIZED:
                return ApiRefused(
                    "The API does not know this key. Give a valid one with --key or UPLIFT_API_KEY."
                )
            case HTTPStatus.FORBIDDEN:
                return ApiRefused(
                    f"This key may not submit records{f' for {user}' if user else ''}: {told}. "
                    "Use a key with the scope 'backend', or a device token of this user."
                )
            case HTTPStatus.NOT_FOUND if "problem+json" not in response.headers.get(
                "Content-Type", ""
            ):
                return self._stranger()
            case HTTPStatus.NOT_FOUND if user is not None:
                return ApiRefused(
                    f"Uplift has no user {user!r}. Create it first: `uplift users add {user}`, or "
                    f'POST {self.url}/v1/users with {{"appUserId": "{user}"}}.'
                )
            case HTTPStatus.NOT_FOUND:
                return ApiUnavailable(f"{self.url} has no such upload (any more).")
            case code if response.is_redirect:
                return ApiUnavailable(
                    f"{self.url} answers {code} and points elsewhere: give the API's own address "
                    "with --api."
                )
            case code:
                return RecordsNotTaken(f"the API answers {code}: {told}")

    def _decoded(self, response: httpx.Response, shape: type[_Shape]) -> _Shape:
        try:
            return msgspec.json.decode(response.content, type=shape)
        except msgspec.DecodeError as error:
            raise self._stranger() from error

    def _stranger(self) -> ApiUnavailable:
        return ApiUnavailable(f"What answers at {self.url} is not Uplift's API: check --api.")


def _told(error: httpx.TransportError) -> str:
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return "nothing listens there"
        case httpx.TimeoutException():
            return "it does not answer in time"
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
