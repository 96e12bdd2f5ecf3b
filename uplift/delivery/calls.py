"""Calls to an upload's destination: logged in there, and reported to the limiter."""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from uplift.delivery.heartbeats import Heartbeats
from uplift.delivery.rate_limiter import RateLimiter
from uplift.delivery.results import Opened
from uplift.destinations.destination import Destination
from uplift.destinations.requests import Upsert, Write
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import HeartbeatMissing, Stopping, WriteFailed
from uplift.fhir.versions import FhirVersion
from uplift.tokens.channels import Channel, Channels
from uplift.tokens.person import AccessToken, Person
from uplift.traces import part


class Calls:
    """Calls destinations. All of them raise what `Access.with_token` raises."""

    def __init__(
        self, channels: Channels, rate_limiters: Mapping[str, RateLimiter], heartbeats: Heartbeats
    ) -> None:
        self._channels = channels
        self._rate_limiters = rate_limiters
        self._heartbeats = heartbeats
        self._stopping = False

    def stop(self) -> None:
        """Begin no write any more."""
        self._stopping = True

    def destination(self, opened: Opened) -> Destination:
        """Where the upload goes."""
        return self._channel(opened).destination

    async def write(
        self,
        opened: Opened,
        write: Write,
        body: bytes | None = None,
        *,
        resource_type: str | None = None,
    ) -> Response:
        """Write the resource, with its own body if no other is given.

        Raises Stopping after `stop`, HeartbeatMissing, and WriteFailed.
        """
        claim = opened.claim
        fhir = self._channel(opened).fhir
        writing = False

        async def ask(token: AccessToken) -> Response:
            nonlocal writing
            # To get the token may have taken a while.
            if self._stopping:
                raise Stopping
            writing = True
            response = await fhir.write(
                authorization=token.authorization,
                version=FhirVersion(claim.fhir_version),
                resource_type=resource_type or claim.resource_type,
                write=write,
                body=opened.body if body is None else body,
                deadline=claim.deadline,
                may_send=lambda: self._heartbeats.may_send(claim.claimed_at),
            )
            # A 401 stored nothing: while the token is refreshed, nothing is under way.
            writing = response.kind is not ResponseKind.UNAUTHORIZED
            return response

        try:
            return await self._call(opened, ask)
        except HeartbeatMissing:
            raise
        except Exception as error:
            if writing:
                raise WriteFailed(error) from error
            raise

    async def look_up(
        self, opened: Opened, resource_id: str, *, resource_type: str | None = None
    ) -> Response:
        """Read the resource of that id."""
        look_up = partial(
            self._channel(opened).fhir.look_up,
            resource_type=resource_type or opened.claim.resource_type,
            resource_id=resource_id,
        )
        return await self._ask(opened, look_up)

    async def match(
        self, opened: Opened, upsert: Upsert, *, resource_type: str | None = None
    ) -> Response:
        """Search for the one resource that an upsert writes to."""
        match = partial(
            self._channel(opened).fhir.match,
            resource_type=resource_type or opened.claim.resource_type,
            upsert=upsert,
        )
        return await self._ask(opened, match)

    async def search(self, opened: Opened, identifier: str, resource: dict[str, Any]) -> Response:
        """Search by FHIR's token for an identifier, for a resource with the same content."""
        search = partial(
            self._channel(opened).fhir.search,
            resource_type=opened.claim.resource_type,
            identifier=identifier,
            ours=resource,
            body_bytes=len(opened.body),
            exactly=opened.has_older_without_receipt or opened.delivered_id is not None,
        )
        return await self._ask(opened, search)

    async def check_version(self, opened: Opened) -> Response:
        """Whether the server is of the upload's FHIR version: FOUND."""
        return await self._ask(opened, self._channel(opened).fhir.check_version)

    async def _ask(self, opened: Opened, read: Callable[..., Awaitable[Response]]) -> Response:
        """Call what only reads, with the login, the FHIR version and the deadline of the upload."""
        claim = opened.claim
        return await self._call(
            opened,
            lambda token: read(
                authorization=token.authorization,
                version=FhirVersion(claim.fhir_version),
                deadline=claim.deadline,
            ),
        )

    def _channel(self, opened: Opened) -> Channel:
        return self._channels[opened.claim.destination]

    async def _call(
        self, opened: Opened, call: Callable[[AccessToken], Awaitable[Response]]
    ) -> Response:
        claim = opened.claim
        asked_at = 0.0

        async def timed(token: AccessToken) -> Response:
            nonlocal asked_at
            asked_at = time.monotonic()
            with part("call") as span:
                response = await call(token)
                span.note(outcome=response.code)
                if response.status_code is not None:
                    span.note(status=response.status_code)
            return response

        person = Person(claim.user_id, claim.app_user_id, opened.key)
        response = await self._channel(opened).access.with_token(person, timed)
        # Only the last response counts: a 401 that a fresh token cures is no failure.
        self._rate_limiters[claim.destination].answered(
            response,
            asked_at,
            fhir_type=claim.fhir_type,
            upload_id=claim.upload_id,
            user_id=claim.user_id,
        )
        return response
