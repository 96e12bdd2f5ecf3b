"""One attempt at one claimed upload: open, validate, look, send."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

import orjson
import structlog

from uplift.delivery.outcome import Endings, Facts
from uplift.delivery.rate_limiter import RateLimiter
from uplift.delivery.reconcile import (
    ById,
    Conclusion,
    Finding,
    Look,
    case_of,
    next_step,
    written_after,
)
from uplift.destinations.client import FhirClient
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import NeedsAuthorization, SealError, TokenPending, TokenUnavailable
from uplift.fhir.tolerances import Tolerances
from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion
from uplift.identity import same_content
from uplift.ledger.leases import Claim, Outcome
from uplift.ledger.uploads import body_context, receipt_context
from uplift.ledger.users import key_context
from uplift.lifecycle import Reason
from uplift.metrics import count_findings, library_disagreements
from uplift.sealing import KeyRing, UserKey
from uplift.settings import Settings
from uplift.tokens.access import TokenAccess
from uplift.tokens.person import AccessToken, Person

_log = structlog.get_logger(__name__)


_STAND_IN = UserKey.generate()


class _Stopping(Exception):
    """The process is to stop, and this upload is not sent yet."""


class Attempter:
    """Attempts uploads. Holds no state of theirs; the ledger does."""

    def __init__(
        self,
        key_ring: KeyRing,
        access: TokenAccess,
        fhir: FhirClient,
        rate_limiter: RateLimiter,
        settings: Settings,
    ) -> None:
        self._key_ring = key_ring
        self._rate_limiter = rate_limiter
        self._access = access
        self._fhir = fhir
        self._endings = Endings(settings)
        self._keeps_ids = settings.oneup_keeps_ids
        self._tolerances = tolerances(settings)
        self._second_opinion = settings.second_opinion
        self._stopping = False

    def stop(self) -> None:
        """Send nothing more: attempts that have not sent yet hand their upload back."""
        self._stopping = True

    async def attempt(self, claim: Claim, deadline: float) -> Outcome:
        """Try to deliver a claimed upload; `deadline` is on `time.monotonic`.

        Raises nothing: whatever goes wrong is a way to end.
        """
        # Until its own key is unwrapped, one that opens nothing stands in.
        facts = Facts(claim, _STAND_IN, time.monotonic(), deadline, claim.maybe_sent)
        upload = str(claim.upload_id)
        if claim.cancel_requested and not claim.maybe_sent:
            return self._endings.cancelled(facts)
        if claim.collides and not claim.cancel_requested:
            return self._endings.collided(facts)
        try:
            facts.key = self._key_ring.unwrap(claim.wrapped_key, key_context(claim.user_id))
            facts.body = facts.key.open(claim.sealed_body, body_context(claim.upload_id))
            return await self._validate_and_send(facts)
        except _Stopping:
            return self._endings.handed_back(facts)
        except NeedsAuthorization:
            return self._endings.parked(facts)
        except TokenPending as error:
            return self._endings.awaiting_token(facts, error)
        except TokenUnavailable as error:
            floor = error.retry_after or 0.0
            return self._endings.again(facts, Reason.NO_TOKEN, "no_token", floor=floor)
        except SealError as error:
            _log.error("sealed_value_does_not_open", upload=upload, why=str(error))
            return self._endings.held(facts, "sealed")
        except Exception as error:  # noqa: BLE001  one upload must not take the others with it
            _log.error("attempt_failed", upload=upload, error=type(error).__name__)
            return self._endings.failed(facts, error)

    async def _validate_and_send(self, facts: Facts) -> Outcome:
        claim = facts.claim
        # What its owner withdrew is only looked for.
        checked = claim.validated or claim.cancel_requested
        if not checked and not await self._is_valid(facts):
            return self._endings.rejected(facts)
        target = self._delivered_as(facts)
        if facts.maybe_sent:
            ended = await self._look_first(facts, target)
            if ended is not None:
                return ended
        if claim.cancel_requested:
            return self._endings.cancelled(facts)
        if claim.past_deadline:
            return self._endings.expired(facts)
        return await self._send(facts, target)

    async def _is_valid(self, facts: Facts) -> bool:
        # Several milliseconds for a large record: not on the loop that all sends share.
        report = await asyncio.to_thread(
            validate,
            facts.body,
            facts.claim.fhir_version,
            tolerances=self._tolerances,
            second_opinion=self._second_opinion,
        )
        facts.issues = report.to_json()
        count_findings((issue.code, issue.severity) for issue in report.issues)
        if report.library_disagreement:
            library_disagreements.labels(facts.claim.fhir_version).inc()
        return report.valid

    async def _send(self, facts: Facts, target: str | None) -> Outcome:
        response = await self._write(facts, target)
        if response.kind is ResponseKind.ABSENT and target is not None:
            # What was delivered before is gone: look, and if it really is, create it anew.
            look = await self._look(facts, ById(target), {})
            if look.kind is ResponseKind.ABSENT:
                response = await self._write(facts, None)
        return self._endings.of_write(facts, response)

    async def _look_first(self, facts: Facts, target: str | None) -> Outcome | None:
        """Ask 1upHealth whether an earlier attempt arrived; None if it is known, or never will be,
        that none did."""
        resource: dict[str, Any] = orjson.loads(facts.body)
        case = case_of(
            resource,
            fhir_version=facts.claim.fhir_version,
            target=target,
            keeps_ids=self._keeps_ids,
            empty_searches=facts.claim.empty_searches,
        )
        seen: list[tuple[Look, Finding]] = []
        while not isinstance(step := next_step(case, seen), Conclusion):
            response = await self._look(facts, step, resource)
            seen.append((step, _finding(response, resource)))
            if seen[-1][1] is Finding.OTHER and self._is_newer(facts, response):
                return self._endings.overtaken(facts)
        match step:
            case Conclusion.STORED:
                return self._endings.delivered(facts, response, "found")
            case Conclusion.LOOK_AGAIN:
                return self._endings.looked_in_vain(facts, response)
            case Conclusion.SEARCH_AGAIN:
                return self._endings.search_again(facts)
            case Conclusion.NOT_STORED:
                facts.maybe_sent = False
                facts.again = True
            case Conclusion.CANNOT_TELL:
                facts.again = True
        return None

    def _delivered_as(self, facts: Facts) -> str | None:
        """The id under which an older version of this record is at 1upHealth."""
        return _delivered(facts)["id"] or None

    def _is_newer(self, facts: Facts, found: Response) -> bool:
        """Whether other content came there after what the restored ledger has heard of."""
        if facts.claim.restored_to is None:
            return False
        return written_after(
            found.resource or {},
            facts.claim.restored_to,
            known_version=_delivered(facts)["version"],
        )

    async def _write(self, facts: Facts, target: str | None) -> Response:
        async def send(token: AccessToken) -> Response:
            # Getting the token may have taken a while.
            if self._stopping:
                raise _Stopping
            facts.writing = True
            return await self._fhir.write(
                token=token.value,
                version_path=_path(facts.claim),
                resource_type=facts.claim.resource_type,
                body=facts.body,
                deadline=facts.deadline,
                resource_id=target,
            )

        response = await self._authorized(facts, send)
        # Whatever comes next, only an answer that leaves it open may still count as sent.
        facts.writing = response.kind in (ResponseKind.STORED, ResponseKind.UNKNOWN)
        return response

    async def _look(self, facts: Facts, look: Look, resource: dict[str, Any]) -> Response:
        claim = facts.claim

        async def ask(token: AccessToken) -> Response:
            if isinstance(look, ById):
                return await self._fhir.look(
                    token=token.value,
                    version_path=_path(claim),
                    resource_type=claim.resource_type,
                    resource_id=look.resource_id,
                    deadline=facts.deadline,
                )
            return await self._fhir.search(
                token=token.value,
                version=FhirVersion(claim.fhir_version),
                resource_type=claim.resource_type,
                identifier=look.token,
                ours=resource,
                body_bytes=len(facts.body),
                deadline=facts.deadline,
            )

        return await self._authorized(facts, ask)

    async def _authorized(
        self, facts: Facts, ask: Callable[[AccessToken], Awaitable[Response]]
    ) -> Response:
        """Ask with the user's token, and once more with a fresh one if it is refused."""
        person = Person(facts.claim.user_id, facts.claim.app_user_id, facts.key)
        token = await self._access.token(person)
        asked_at = time.monotonic()
        response = await ask(token)
        if response.kind is ResponseKind.UNAUTHORIZED:
            facts.writing = False
            token = await self._access.token(person, refused=token.version)
            asked_at = time.monotonic()
            response = await ask(token)
        self._rate_limiter.answered(facts.claim.upload_id, response, asked_at)
        return response


def _finding(response: Response, resource: dict[str, Any]) -> Finding:
    match response.kind:
        case ResponseKind.FOUND:
            return Finding.OURS if same_content(resource, response.resource) else Finding.OTHER
        case ResponseKind.ABSENT:
            return Finding.NOTHING
    return Finding.FAILED


def tolerances(settings: Settings) -> Tolerances:
    """The switches of validation as the settings have them."""
    return Tolerances(
        **{
            switch.name: getattr(settings, f"tolerate_{switch.name}")
            for switch in fields(Tolerances)
        }
    )


def _delivered(facts: Facts) -> dict[str, str | None]:
    """What 1upHealth called the record's version that was delivered last: `id` and `version`."""
    sealed = facts.claim.record_receipt
    if sealed is None:
        return {"id": None, "version": None}
    opened: dict[str, str | None] = orjson.loads(
        facts.key.open(sealed, receipt_context(facts.claim.record_id))
    )
    return opened


def _path(claim: Claim) -> str:
    return FhirVersion(claim.fhir_version).path
