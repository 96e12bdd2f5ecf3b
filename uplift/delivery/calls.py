"""Calls to an upload's destination: logged in there, and reported to the limiter."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from uplift.delivery.heartbeats import Heartbeats
from uplift.delivery.rate_limiter import RateLimiter
from uplift.delivery.results import Opened
from uplift.destinations.bundle_responses import BundleResponse
from uplift.destinations.destination import Destination
from uplift.destinations.requests import Entry, Upsert, Write
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import HeartbeatMissing, Stopping, WriteFailed
from uplift.fhir.versions import FhirVersion
from uplift.ledger.leases import Claim
from uplift.metrics import count_bundle
from uplift.tokens.channels import Channel, Channels
from uplift.tokens.person import AccessToken, Person
from uplift.traces import part

# What the login is told of a Bundle whose entries have responses of their own.
_TAKEN = Response(ResponseKind.STORED, "http_200", 200)


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

        async def send(token: AccessToken) -> Response:
            return await fhir.write(
                authorization=token.authorization,
                version=FhirVersion(claim.fhir_version),
                resource_type=resource_type or claim.resource_type,
                write=write,
                body=opened.body if body is None else body,
                deadline=claim.deadline,
                may_send=lambda: self._heartbeats.may_send(claim.claimed_at),
            )

        return await self._write(opened, send, partial(self._report, claim))

    async def write_bundle(self, members: Sequence[tuple[Opened, Entry]]) -> list[Response]:
        """Write these resources with one request; the response to each, in their order.

        They go to one base with one login. Raises what `write` raises.
        """
        first = members[0][0]
        claims = [opened.claim for opened, _ in members]
        fhir = self._channel(first).fhir
        answer = BundleResponse([])

        async def send(token: AccessToken) -> Response:
            nonlocal answer
            answer = await fhir.write_bundle(
                [entry for _, entry in members],
                authorization=token.authorization,
                version=FhirVersion(first.claim.fhir_version),
                deadline=min(claim.deadline for claim in claims),
                may_send=lambda: self._heartbeats.may_send(min(c.claimed_at for c in claims)),
            )
            # A token that was refused for one entry was taken for the Bundle.
            return answer.each[0] if answer.is_of_all else _TAKEN

        def report(_: Response, asked_at: float) -> None:
            self._report_bundle(claims, answer, asked_at)

        await self._write(first, send, report)
        return answer.each

    async def _write(
        self,
        opened: Opened,
        send: Callable[[AccessToken], Awaitable[Response]],
        report: Callable[[Response, float], None],
    ) -> Response:
        """Send what writes, and report the last response: it, and when it was asked for."""
        writing = False

        async def ask(token: AccessToken) -> Response:
            nonlocal writing
            # To get the token may have taken a while.
            if self._stopping:
                raise Stopping
            writing = True
            response = await send(token)
            # A 401 stored nothing: while the token is refreshed, nothing is under way.
            writing = response.kind is not ResponseKind.UNAUTHORIZED
            return response

        try:
            response, asked_at = await self._with_token(opened, ask)
            report(response, asked_at)
        except HeartbeatMissing:
            raise
        except Exception as error:
            if writing:
                raise WriteFailed(error) from error
            raise
        return response

    def _report_bundle(
        self, claims: Sequence[Claim], answer: BundleResponse, asked_at: float
    ) -> None:
        """What speaks of all is one failure, and of no type: it is one request."""
        if answer.is_of_all:
            refused = answer.each[0].kind is ResponseKind.BUNDLE_REFUSED
            count_bundle(len(claims), "refused" if refused else "whole")
            self._report(claims[0], answer.each[0], asked_at, of_type=False)
            return
        count_bundle(len(claims), "each")
        for claim, response in zip(claims, answer.each, strict=True):
            self._report(claim, response, asked_at)

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
        response, asked_at = await self._with_token(opened, call)
        # Only the last response counts: a 401 that a fresh token cures is no failure.
        self._report(opened.claim, response, asked_at)
        return response

    async def _with_token(
        self, opened: Opened, call: Callable[[AccessToken], Awaitable[Response]]
    ) -> tuple[Response, float]:
        """The response, and when it was asked for, on time.monotonic."""
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
        return await self._channel(opened).access.with_token(person, timed), asked_at

    def _report(
        self, claim: Claim, response: Response, asked_at: float, *, of_type: bool = True
    ) -> None:
        self._rate_limiters[claim.destination].answered(
            response,
            asked_at,
            fhir_type=claim.fhir_type if of_type else None,
            upload_id=claim.upload_id,
            user_id=claim.user_id,
        )
