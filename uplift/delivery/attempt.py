"""One attempt at one claimed upload: open, validate, look up, send; then its outcome, sealed."""

import asyncio
import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from uplift.delivery.calls import Calls
from uplift.delivery.heartbeats import Heartbeats
from uplift.delivery.lookup import LookUps
from uplift.delivery.outcome import Policy, change_of, receipt_of, response_of
from uplift.delivery.rate_limiter import RateLimiter
from uplift.delivery.results import (
    Cancelled,
    CannotOpen,
    Collides,
    Failed,
    Invalid,
    LastStep,
    NotFound,
    NoToken,
    Opened,
    PastDeadline,
    Result,
    Sent,
    Stopped,
    Unvalidated,
)
from uplift.destinations.client import FhirClient
from uplift.destinations.responses import (
    ANOTHER_ID,
    Response,
    ResponseKind,
    of_another_record,
    of_assigned_id,
)
from uplift.errors import (
    HeartbeatMissing,
    NeedsAuthorization,
    SealError,
    Stopping,
    TokenUnavailable,
    WriteFailed,
)
from uplift.fhir.issues import Report
from uplift.fhir.tolerances import chosen_tolerances
from uplift.fhir.validate import validate
from uplift.identity import receipt_key
from uplift.ledger.leases import Claim, Outcome
from uplift.ledger.uploads import body_context, receipt_context
from uplift.ledger.users import key_context
from uplift.metrics import count_findings, library_disagreements
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.tokens.access import TokenAccess

_log = structlog.get_logger(__name__)


class Attempter:
    """Attempts uploads. Holds no state of theirs; the ledger does."""

    def __init__(
        self,
        key_ring: KeyRing,
        access: TokenAccess,
        fhir: FhirClient,
        rate_limiter: RateLimiter,
        heartbeats: Heartbeats,
        settings: Settings,
    ) -> None:
        self._key_ring = key_ring
        self._calls = Calls(access, fhir, rate_limiter, heartbeats)
        self._look_ups = LookUps(self._calls, keeps_ids=settings.oneup_keeps_ids)
        self._policy = Policy.of(settings)
        self._tolerances = chosen_tolerances(settings)
        self._second_opinion = settings.second_opinion
        self._max_values = settings.max_resource_values

    def stop(self) -> None:
        """Send nothing more: attempts that have not sent yet hand their upload back."""
        self._calls.stop()

    async def attempt(self, claim: Claim) -> Outcome:
        """Try to deliver a claimed upload, until `claim.deadline`.

        Raises nothing: whatever goes wrong is an outcome.
        """
        started = time.monotonic()
        opened, result = await self._open_and_deliver(claim)
        return self._outcome(claim, opened, result, started)

    async def _open_and_deliver(self, claim: Claim) -> tuple[Opened | None, Result]:
        if claim.cancel_requested and not claim.maybe_sent:
            return None, Result(Cancelled())
        if claim.collides and not claim.cancel_requested:
            return None, Result(Collides())
        try:
            opened = self._open(claim)
        except Exception as error:  # noqa: BLE001  one upload must not take the others with it
            return None, Result(_stopped_by(error, claim))
        return opened, await self._deliver(opened)

    def _open(self, claim: Claim) -> Opened:
        """Decrypt everything of the claim. What does not decrypt holds it, whatever its body is."""
        key = self._key_ring.unwrap(claim.wrapped_key, key_context(claim.user_id))
        body = key.open(claim.sealed_body, body_context(claim.upload_id))
        if claim.record_receipt is None:
            return Opened(claim, key, body)
        receipt: dict[str, Any] = orjson.loads(
            key.open(claim.record_receipt, receipt_context(claim.record_id))
        )
        return Opened(claim, key, body, receipt["id"] or None, receipt["version"])

    async def _deliver(self, opened: Opened) -> Result:
        claim = opened.claim
        issues: dict[str, Any] | None = None
        in_doubt, can_tell = False, True
        try:
            # A cancelled upload is only looked up.
            if not claim.validated and not claim.cancel_requested:
                report = await self._validate(opened)
                issues = report.to_json()
                if not report.valid:
                    return Result(Unvalidated() if report.too_complex else Invalid(), issues)
            if claim.maybe_sent:
                looked_up = await self._look_ups.look_up(opened)
                if not isinstance(looked_up, NotFound):
                    return Result(looked_up, issues)
                can_tell = looked_up.can_tell
                # What was under way when the ledger lost commits is stored by now, or never.
                in_doubt = not (claim.maybe_lost and can_tell)
            if claim.cancel_requested:
                return Result(Cancelled(), issues, in_doubt, can_tell)
            if claim.past_deadline:
                return Result(PastDeadline(), issues, in_doubt, can_tell)
            return Result(await self._send(opened), issues, in_doubt, can_tell)
        except Exception as error:  # noqa: BLE001  one upload must not take the others with it
            return Result(_stopped_by(error, claim), issues, in_doubt, can_tell)

    async def _validate(self, opened: Opened) -> Report:
        # Several milliseconds for a large record: not on the loop that all sends share.
        report = await asyncio.to_thread(
            validate,
            opened.body,
            opened.claim.fhir_version,
            tolerances=self._tolerances,
            second_opinion=self._second_opinion,
            max_values=self._max_values,
        )
        count_findings((issue.code, issue.severity) for issue in report.issues)
        if report.library_disagreement:
            library_disagreements.labels(opened.claim.fhir_version).inc()
        return report

    async def _send(self, opened: Opened) -> Sent:
        target = opened.delivered_id
        response = await self._calls.write(opened, target)
        if response.kind is ResponseKind.ABSENT and target is not None:
            # The target of the update is gone. If a look-up says so too, create it again.
            found = await self._calls.look_up(opened, target)
            if found.kind is ResponseKind.ABSENT:
                response = await self._calls.write(opened, None)
                target = None
        if response.code == ANOTHER_ID and target is None:
            response = await self._at_assigned_id(opened, response)
        return Sent(response)

    async def _at_assigned_id(self, opened: Opened, response: Response) -> Response:
        """Look up the id that a create was answered with, although ids are said to be kept.

        If the setting is wrong, our content is there. It is not under our id, so each attempt
        would create it once more.
        """
        assigned = response.receipt.id if response.receipt is not None else None
        if assigned is None:
            return response
        try:
            found = await self._calls.look_up(opened, assigned)
        except Exception as error:  # noqa: BLE001  the write has its response, whatever this has
            _log.warning("assigned_id_not_looked_up", error=type(error).__name__)
            return response
        return of_assigned_id(response, found, opened.body)

    def _outcome(
        self, claim: Claim, opened: Opened | None, result: Result, started: float
    ) -> Outcome:
        upload_receipt = record_receipt = None
        if opened is not None:
            receipt = receipt_of(opened, result, datetime.now(UTC))
            if receipt is not None:
                upload_receipt = opened.key.seal(receipt, receipt_context(claim.upload_id))
                record_receipt = opened.key.seal(receipt, receipt_context(claim.record_id))
        change, code = change_of(
            claim,
            result,
            self._policy,
            jitter=random.random(),  # noqa: S311
            sealed_receipt=upload_receipt,
        )
        response = response_of(result.last)
        outcome = Outcome(
            claim=claim,
            change=change,
            code=code,
            status_code=response.status_code if response is not None else None,
            duration=time.monotonic() - started,
            record_receipt=record_receipt,
        )
        if opened is None or response is None or response.receipt is None or not record_receipt:
            return outcome
        outcome = replace(outcome, receipt_key=_receipt_key(opened, response.receipt.id))
        if not response.receipt.assigned:
            return outcome
        other = replace(result, last=Sent(of_another_record(response)))
        return replace(outcome, if_taken=self._outcome(claim, opened, other, started))


def _receipt_key(opened: Opened, resource_id: str | None) -> bytes | None:
    if not resource_id:
        return None
    return receipt_key(
        opened.key.identity_key,
        fhir_version=opened.claim.fhir_version,
        resource_type=opened.claim.resource_type,
        resource_id=resource_id,
    )


def _stopped_by(error: Exception, claim: Claim) -> LastStep:
    """The last step of an attempt that this error ended."""
    upload = str(claim.upload_id)
    match error:
        case Stopping() | HeartbeatMissing():
            return Stopped()
        case NeedsAuthorization() | TokenUnavailable():
            return NoToken(error)
        case SealError():
            _log.error("sealed_value_does_not_open", upload=upload, why=str(error))
            return CannotOpen()
        case WriteFailed():
            _log.error("attempt_failed", upload=upload, error=error.error)
            return Failed(error.error, writing=True)
    _log.error("attempt_failed", upload=upload, error=type(error).__name__)
    return Failed(type(error).__name__)
