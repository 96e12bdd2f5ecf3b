"""Calls to the destination for one upload: with its user's token, and reported to the limiter."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from uplift.delivery.heartbeats import Heartbeats
from uplift.delivery.rate_limiter import RateLimiter
from uplift.delivery.results import Opened
from uplift.destinations.client import FhirClient
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import HeartbeatMissing, Stopping, WriteFailed
from uplift.fhir.versions import FhirVersion
from uplift.tokens.access import TokenAccess
from uplift.tokens.person import AccessToken, Person
from uplift.traces import part


class Calls:
    """Calls the destination. All of them raise what `TokenAccess.with_token` raises."""

    def __init__(
        self,
        access: TokenAccess,
        fhir: FhirClient,
        rate_limiter: RateLimiter,
        heartbeats: Heartbeats,
    ) -> None:
        self._access = access
        self._fhir = fhir
        self._rate_limiter = rate_limiter
        self._heartbeats = heartbeats
        self._stopping = False

    def stop(self) -> None:
        """Begin no create or update any more."""
        self._stopping = True

    async def write(self, opened: Opened, resource_id: str | None) -> Response:
        """Create the resource, or update the one of that id.

        Raises Stopping after `stop`, HeartbeatMissing, and WriteFailed.
        """
        claim = opened.claim
        writing = False

        async def write(token: AccessToken) -> Response:
            nonlocal writing
            # To get the token may have taken a while.
            if self._stopping:
                raise Stopping
            writing = True
            response = await self._fhir.write(
                token=token.value,
                version_path=FhirVersion(claim.fhir_version).path,
                resource_type=claim.resource_type,
                body=opened.body,
                deadline=claim.deadline,
                resource_id=resource_id,
                may_send=lambda: self._heartbeats.may_send(claim.claimed_at),
            )
            # A 401 stored nothing: while the token is refreshed, nothing is under way.
            writing = response.kind is not ResponseKind.UNAUTHORIZED
            return response

        try:
            return await self._call(opened, write)
        except HeartbeatMissing:
            raise
        except Exception as error:
            if writing:
                raise WriteFailed(error) from error
            raise

    async def look_up(self, opened: Opened, resource_id: str) -> Response:
        """Read the resource of that id."""
        claim = opened.claim

        async def look_up(token: AccessToken) -> Response:
            return await self._fhir.look_up(
                token=token.value,
                version_path=FhirVersion(claim.fhir_version).path,
                resource_type=claim.resource_type,
                resource_id=resource_id,
                deadline=claim.deadline,
            )

        return await self._call(opened, look_up)

    async def search(self, opened: Opened, identifier: str, resource: dict[str, Any]) -> Response:
        """Search by FHIR's token for an identifier, for a resource with the same content."""
        claim = opened.claim

        async def search(token: AccessToken) -> Response:
            return await self._fhir.search(
                token=token.value,
                version=FhirVersion(claim.fhir_version),
                resource_type=claim.resource_type,
                identifier=identifier,
                ours=resource,
                body_bytes=len(opened.body),
                deadline=claim.deadline,
                exactly=opened.has_older_without_receipt or opened.delivered_id is not None,
            )

        return await self._call(opened, search)

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
        response = await self._access.with_token(person, timed)
        # Only the last response counts: a 401 that a fresh token cures is no failure.
        self._rate_limiter.answered(
            response,
            asked_at,
            fhir_type=claim.fhir_type,
            upload_id=claim.upload_id,
            user_id=claim.user_id,
        )
        return response
