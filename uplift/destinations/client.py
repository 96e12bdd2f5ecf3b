"""The connection to a destination: one request in, one classified `Response` out."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import httpx

from uplift.destinations.bundle_responses import BundleResponse, classify_bundle
from uplift.destinations.contents import read_chunks
from uplift.destinations.destination import Destination, Mode
from uplift.destinations.http_client import HttpClient
from uplift.destinations.refusals import refusal_issues
from uplift.destinations.requests import (
    Entry,
    Prepared,
    Upsert,
    Write,
    bundle_body,
    fits_a_header,
    prepare_bundle,
    prepare_delete,
    prepare_read,
    prepare_write,
    resource_url,
)
from uplift.destinations.responses import (
    Response,
    ResponseKind,
    classify_delete,
    classify_error,
    classify_look_up,
    classify_match,
    classify_metadata,
    classify_read,
    classify_search,
    classify_write,
)
from uplift.errors import (
    ConfigurationError,
    DeadlinePassed,
    HeartbeatMissing,
    ResponseTooLarge,
)
from uplift.fhir.interactions import bases_of, parse_link
from uplift.fhir.versions import FhirVersion
from uplift.settings import Settings

# A stored resource comes back with its create; beyond this it cannot be ours.
_RESPONSE_SLACK_BYTES = 1024 * 1024
# The largest page that 1upHealth gives, in resources.
_MAX_PAGE = 100
# One identifier with more pages than this is a sign of a wrong search.
_MAX_PAGES = 20
# A thread parses a larger page: meanwhile nothing else could run on the loop.
_MAX_INLINE_BYTES = 64 * 1024

_UNUSABLE_TOKEN = Response(ResponseKind.UNAUTHORIZED, "unusable_token")


class FhirClient:
    """A destination's FHIR API. `authorization` is the header of that name; empty sends none."""

    def __init__(self, http: HttpClient, destination: Destination, settings: Settings) -> None:
        for base in destination.bases.values():
            if not base.startswith(("https://", "http://")):
                raise ConfigurationError(
                    f"A base of the destination {destination.name} does not start with https:// or"
                    " http://. That of 1upHealth is UPLIFT_ONEUP_FHIR_URL."
                )
        self._http = http
        self._destination = destination
        self._keeps_ids = settings.oneup_keeps_ids and destination.mode is Mode.ONEUP
        self._max_response = settings.max_body_bytes + _RESPONSE_SLACK_BYTES

    async def write(
        self,
        *,
        authorization: str,
        version: FhirVersion,
        resource_type: str,
        write: Write,
        body: bytes,
        deadline: float,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Response:
        """Send a resource with the bytes as they are.

        `deadline` is on `time.monotonic`: after it nothing is sent, and no response is waited for.
        `may_send` is asked just before the first byte of the body.

        Raises:
            HeartbeatMissing: `may_send` said no. Nothing of the body is sent.
        """
        if not fits_a_header(authorization):
            return _UNUSABLE_TOKEN
        prepared = prepare_write(
            self._destination,
            write,
            version=version,
            resource_type=resource_type,
            authorization=authorization,
            body_bytes=len(body),
        )
        if prepared is None:
            return Response(ResponseKind.HOLD, "unaddressable_id")
        response = await self._send(prepared, body, deadline, may_send)
        if isinstance(response, Response):
            return response
        status, headers, content = response
        classify = partial(
            classify_write,
            status,
            headers,
            content,
            resource_type,
            destination=self._destination,
            write=write,
            sent=body,
            keeps_ids=self._keeps_ids,
        )
        if len(body) + len(content) > _MAX_INLINE_BYTES:
            classified = await asyncio.to_thread(classify)
        else:
            classified = classify()
        if classified.kind is not ResponseKind.REFUSED:
            return classified
        refusal = refusal_issues(headers, content, version, resource_type)
        return replace(classified, refusal=refusal)

    async def write_bundle(
        self,
        entries: Sequence[Entry],
        *,
        authorization: str,
        version: FhirVersion,
        deadline: float,
        may_send: Callable[[], bool] = lambda: True,
    ) -> BundleResponse:
        """Send several resources as one Bundle; the response to each, in their order.

        `deadline` and `may_send` as in `write`, and so is what it raises.
        """
        body = bundle_body(self._destination.bundle, entries)
        prepared = prepare_bundle(
            self._destination, version=version, authorization=authorization, body_bytes=len(body)
        )
        if not fits_a_header(authorization):
            return BundleResponse.of_all(_UNUSABLE_TOKEN, entries)
        if prepared is None:
            not_taken = Response(ResponseKind.HOLD, "version_not_taken")
            return BundleResponse.of_all(not_taken, entries)
        # What is stored comes back, with what servers add to each.
        limit = self._max_response + 2 * len(body)
        response = await self._send(prepared, body, deadline, may_send, limit)
        if isinstance(response, Response):
            return BundleResponse.of_all(response, entries)
        status, headers, content = response
        classify = partial(
            classify_bundle,
            status,
            headers,
            content,
            entries,
            destination=self._destination,
            version=version,
        )
        if len(body) + len(content) > _MAX_INLINE_BYTES:
            return await asyncio.to_thread(classify)
        return classify()

    async def delete(
        self,
        *,
        authorization: str,
        version: FhirVersion,
        resource_type: str,
        resource_id: str,
        deadline: float,
    ) -> Response:
        """Delete a resource by id: DELETED, ABSENT if it is not there. `deadline` as in `write`."""
        if not fits_a_header(authorization):
            return _UNUSABLE_TOKEN
        prepared = prepare_delete(
            self._destination,
            version=version,
            resource_type=resource_type,
            resource_id=resource_id,
            authorization=authorization,
        )
        if prepared is None:
            return Response(ResponseKind.REFUSED, "unaddressable_id")
        response = await self._exchange(prepared, deadline)
        if isinstance(response, Response):
            return response
        return classify_delete(*response[:2])

    async def look_up(
        self,
        *,
        authorization: str,
        version: FhirVersion,
        resource_type: str,
        resource_id: str,
        deadline: float,
    ) -> Response:
        """Read a resource by id. `deadline` as in `write`."""
        address = resource_url(resource_type, resource_id)
        if address is None:
            return Response(ResponseKind.UNKNOWN, "unaddressable_id")
        response = await self._get(authorization, version, address, deadline)
        if isinstance(response, Response):
            return response
        return classify_look_up(*response, resource_type)

    async def match(
        self,
        *,
        authorization: str,
        version: FhirVersion,
        resource_type: str,
        upsert: Upsert,
        deadline: float,
    ) -> Response:
        """Search for the one resource that an upsert writes to. `deadline` as in `write`.

        FOUND, or ABSENT if there is none.
        """
        address = f"{resource_type}?{upsert.query}"
        response = await self._get(authorization, version, address, deadline)
        if isinstance(response, Response):
            return response
        return classify_match(*response, resource_type)

    async def search(
        self,
        *,
        authorization: str,
        version: FhirVersion,
        resource_type: str,
        identifier: str,
        ours: dict[str, Any],
        body_bytes: int,
        deadline: float,
        exactly: bool = False,
    ) -> Response:
        """Search for a resource with the content of `ours`, by FHIR's token for its identifier.

        `exactly` as in `same_content`. Follows the pages. FOUND with the first resource that has
        the content, ABSENT if none has.
        `body_bytes` is the size of `ours`: pages are chosen so small that such resources fit.
        `deadline` as in `write`.
        """
        count = min(_MAX_PAGE, max(1, self._max_response // (4 * max(body_bytes, 1))))
        query = urlencode({"identifier": identifier, "_count": count}, quote_via=quote, safe="")
        address = f"{resource_type}?{query}"
        for _ in range(_MAX_PAGES):
            response = await self._get(authorization, version, address, deadline)
            if isinstance(response, Response):
                return response
            status, headers, content = response
            classify = partial(
                classify_search, status, headers, content, resource_type, ours, exactly=exactly
            )
            if len(content) > _MAX_INLINE_BYTES:
                response = await asyncio.to_thread(classify)
            else:
                response = classify()
            if response.next_page is None:
                return response
            # Only its path and query are followed, and only to a page of this search.
            link = parse_link(version, bases_of(self._base(version), version), response.next_page)
            if link is None or link.path != resource_type:
                return Response(ResponseKind.UNKNOWN, "next_page_elsewhere", status)
            address = link.address
        return Response(ResponseKind.UNKNOWN, "search_without_end")

    async def check_version(
        self, *, authorization: str, version: FhirVersion, deadline: float
    ) -> Response:
        """FOUND if the server says that it is of that version. `deadline` as in `write`."""
        response = await self._get(authorization, version, "metadata", deadline)
        if isinstance(response, Response):
            return response
        return classify_metadata(*response, version)

    async def read(
        self,
        *,
        authorization: str,
        version: FhirVersion,
        address: str,
        resource_type: str,
        deadline: float,
        limit: int,
    ) -> Response:
        """Read the resource or the page at an address below the version's base.

        The address is used as it is. The response has the bytes as they came, if they are a
        resource of that type and not more than `limit` bytes. `deadline` as in `write`.
        """
        response = await self._get(authorization, version, address, deadline, limit)
        if isinstance(response, Response):
            return response
        return classify_read(*response, resource_type)

    def _base(self, version: FhirVersion) -> str:
        return self._destination.base(version) or ""

    async def _send(
        self,
        prepared: Prepared,
        body: bytes,
        deadline: float,
        may_send: Callable[[], bool],
        limit: int | None = None,
    ) -> tuple[int, httpx.Headers, bytes] | Response:
        started = silent = False

        async def stream() -> AsyncIterator[bytes]:
            # A process that was frozen after its decision to send must not send late: meanwhile
            # another worker may have claimed the upload.
            nonlocal started, silent
            silent = not may_send()
            if silent or time.monotonic() >= deadline:
                raise DeadlinePassed
            started = True
            yield body

        response = await self._exchange(prepared, deadline, limit, stream())
        if silent:
            raise HeartbeatMissing
        if isinstance(response, Response) and not started:
            return Response(ResponseKind.NOT_SENT, response.code)
        return response

    async def _get(
        self,
        authorization: str,
        version: FhirVersion,
        address: str,
        deadline: float,
        limit: int | None = None,
    ) -> tuple[int, httpx.Headers, bytes] | Response:
        if not fits_a_header(authorization):
            return _UNUSABLE_TOKEN
        prepared = prepare_read(
            self._destination, version=version, address=address, authorization=authorization
        )
        if prepared is None:
            return Response(ResponseKind.UNKNOWN, "version_not_taken")
        return await self._exchange(prepared, deadline, limit)

    async def _exchange(
        self,
        prepared: Prepared,
        deadline: float,
        limit: int | None = None,
        content: AsyncIterator[bytes] | None = None,
    ) -> tuple[int, httpx.Headers, bytes] | Response:
        limit = self._max_response if limit is None else limit
        try:
            async with (
                asyncio.timeout(deadline - time.monotonic()),
                self._http.ask(
                    prepared.method, prepared.url, headers=prepared.headers, content=content
                ) as response,
            ):
                headers = httpx.Headers(response.raw_headers)
                chunks = response.content.iter_any()
                return response.status, headers, await read_chunks(headers, chunks, limit)
        except ResponseTooLarge:
            return Response(ResponseKind.UNKNOWN, "response_too_large")
        except (aiohttp.ClientError, httpx.RequestError, DeadlinePassed) as error:
            return classify_error(error)
        except TimeoutError:
            return Response(ResponseKind.UNKNOWN, "no_answer")
        except OSError as error:
            return classify_error(error)
        except ValueError:
            # aiohttp and the resolver raise it for an address that they cannot use.
            return Response(ResponseKind.UNKNOWN, "unusable_address")
