"""One attempt at one claimed upload: open, validate, look up, send; then its outcome, sealed."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import orjson
import structlog

from uplift.clocks import LedgerClock
from uplift.delivery.calls import Calls
from uplift.delivery.derived import DerivedDelivery
from uplift.delivery.heartbeats import Heartbeats
from uplift.delivery.meeting import Meeting
from uplift.delivery.oneup import OneUpDelivery
from uplift.delivery.outcome import (
    Policy,
    change_of,
    may_be_late,
    receipt_of,
    response_of,
)
from uplift.delivery.persons import Persons
from uplift.delivery.rate_limiter import RateLimiter
from uplift.delivery.results import (
    Cancelled,
    CannotOpen,
    ClockStepped,
    Collides,
    Failed,
    Invalid,
    LastStep,
    NoDestination,
    NoToken,
    Opened,
    Result,
    Sent,
    Stopped,
    Unvalidated,
)
from uplift.delivery.targets import Targets
from uplift.delivery.validation import Validation
from uplift.destinations.derived_ids import read_id_key
from uplift.destinations.destination import Mode
from uplift.destinations.responses import Response, of_another_record
from uplift.errors import (
    HeartbeatMissing,
    NeedsAuthorization,
    SealError,
    Stopping,
    TokenUnavailable,
    WriteFailed,
)
from uplift.fhir.types import ONEUP_TYPES, RELAYED_TYPES
from uplift.identity import receipt_key
from uplift.ledger.database import Database
from uplift.ledger.leases import Claim, Outcome
from uplift.ledger.uploads import body_context, delivery_context, receipt_context
from uplift.ledger.users import key_context
from uplift.sealing import KeyRing, UserKey, WrappedKey
from uplift.settings import Settings
from uplift.tokens.channels import Channels

_log = structlog.get_logger(__name__)


class Attempter:
    """Attempts uploads. Holds no state of theirs; the ledger does."""

    def __init__(
        self,
        key_ring: KeyRing,
        channels: Channels,
        rate_limiters: Mapping[str, RateLimiter],
        heartbeats: Heartbeats,
        database: Database,
        settings: Settings,
    ) -> None:
        self._key_ring = key_ring
        # Of those who have something in flight.
        self._keys: WeakValueDictionary[tuple[UUID, WrappedKey], UserKey] = WeakValueDictionary()
        self._channels = channels
        self._calls = Calls(channels, rate_limiters, heartbeats)
        self._oneup = OneUpDelivery(self._calls, keeps_ids=settings.oneup_keeps_ids)
        self._derived = DerivedDelivery(
            self._calls,
            Persons(database, self._calls, read_id_key(settings) or b""),
            Targets(database, wait_seconds=settings.reference_wait_seconds),
        )
        self._policies = {
            name: Policy.of(settings, repeats=channel.destination.derives_ids)
            for name, channel in channels.items()
        }
        self._any_policy = Policy.of(settings)
        # Where ids are ours, no response can have another record's.
        self._own_ids = {
            name for name, channel in channels.items() if channel.destination.mode is Mode.PUT
        }
        self._validation = Validation(settings)
        self._ledger_clock = LedgerClock()
        # By then what was sent before a step of the ledger's clock has arrived, or never will.
        self._settled_seconds = settings.attempt_seconds + settings.settle_seconds

    def stop(self) -> None:
        """Send nothing more: attempts that have not sent yet hand their upload back."""
        self._calls.stop()

    def meeting(self, group: Sequence[Claim]) -> Meeting | None:
        """Where the attempts of this group meet; None if nobody is with it."""
        channel = self._channels.get(group[0].destination)
        if channel is None or len(group) == 1:
            return None
        ids = [claim.upload_id for claim in group]
        return Meeting(self._calls, ids, max_bytes=channel.destination.bundle_bytes)

    async def attempt(self, claim: Claim, meeting: Meeting | None = None) -> Outcome:
        """Try to deliver a claimed upload, until `claim.deadline`; with others, if they meet.

        Raises nothing: whatever goes wrong is an outcome.
        """
        started = time.monotonic()
        try:
            opened, result = await self._open_and_deliver(claim, meeting)
        finally:
            if meeting is not None:
                meeting.leave(claim.upload_id)
        return self._outcome(claim, opened, result, started)

    async def _open_and_deliver(
        self, claim: Claim, meeting: Meeting | None
    ) -> tuple[Opened | None, Result]:
        channel = self._channels.get(claim.destination)
        if claim.cancel_requested and not claim.maybe_sent:
            return None, Result(Cancelled())
        if channel is None:
            return None, Result(NoDestination())
        derives_ids = channel.destination.derives_ids
        if claim.collides and not claim.cancel_requested and not derives_ids:
            return None, Result(Collides())
        try:
            opened = self._open(claim)
        except Exception as error:  # noqa: BLE001  one upload must not take the others with it
            return None, Result(_stopped_by(error, claim))
        return opened, await self._deliver(opened, meeting, derives_ids=derives_ids)

    def _open(self, claim: Claim) -> Opened:
        """Decrypt everything of the claim. What does not decrypt holds it, whatever its body is."""
        key = self._key_of(claim)
        body = key.open(claim.sealed_body, body_context(claim.upload_id))
        if claim.record_receipt is None:
            return Opened(claim, key, body)
        receipt: dict[str, Any] = orjson.loads(
            key.open(claim.record_receipt, delivery_context(claim.record_id, claim.destination))
        )
        return Opened(claim, key, body, receipt["id"] or None, receipt["version"])

    def _key_of(self, claim: Claim) -> UserKey:
        name = (claim.user_id, claim.wrapped_key)
        key = self._keys.get(name)
        if key is None:
            key = self._key_ring.unwrap(claim.wrapped_key, key_context(claim.user_id))
            self._keys[name] = key
        return key

    async def _deliver(
        self, opened: Opened, meeting: Meeting | None, *, derives_ids: bool
    ) -> Result:
        claim = opened.claim
        clock_right_for = self._ledger_clock.note(claim.claimed_at, claim.ledger_at, time.time())
        issues: dict[str, Any] | None = None
        in_doubt, can_tell = False, True
        try:
            # A cancelled upload is only looked up.
            if not claim.validated and not claim.cancel_requested:
                # Which types another server takes, it says itself.
                taken = RELAYED_TYPES if derives_ids else ONEUP_TYPES
                report = await self._validation.validate(opened.body, claim.fhir_version, taken)
                issues = report.to_json()
                if not report.valid:
                    return Result(Unvalidated() if report.too_complex else Invalid(), issues)
            if derives_ids:
                last, sent = await self._derived.deliver(opened, meeting)
                return Result(last, issues, sent=sent)
            if claim.maybe_sent:
                if clock_right_for < self._settled_seconds:
                    return Result(ClockStepped(), issues)
                ended, can_tell = await self._oneup.look_up(opened)
                if ended is not None:
                    return Result(ended, issues)
                # What was under way when the ledger lost commits is stored by now, or never.
                in_doubt = not (claim.maybe_lost and can_tell)
            return Result(await self._oneup.deliver(opened), issues, in_doubt, can_tell)
        except Exception as error:  # noqa: BLE001  one upload must not take the others with it
            return Result(_stopped_by(error, claim), issues, in_doubt, can_tell)

    def _outcome(
        self, claim: Claim, opened: Opened | None, result: Result, started: float
    ) -> Outcome:
        upload_receipt = record_receipt = None
        if opened is not None:
            receipt = receipt_of(opened, result, datetime.now(UTC))
            if receipt is not None:
                upload_receipt = opened.key.seal(receipt, receipt_context(claim.upload_id))
                record_receipt = opened.key.seal(
                    receipt, delivery_context(claim.record_id, claim.destination)
                )
        change, code = change_of(
            claim,
            result,
            self._policies.get(claim.destination, self._any_policy),
            jitter=random.random(),  # noqa: S311
            sealed_receipt=upload_receipt,
        )
        response = response_of(result.last)
        key: bytes | None = None
        if_taken: Callable[[], Outcome] | None = None
        may_be_taken = claim.destination not in self._own_ids
        if may_be_taken and opened and record_receipt and response and response.receipt:
            key = _receipt_key(opened, response.receipt.id)
            if response.receipt.assigned:
                if_taken = partial(self._if_taken, claim, opened, result, response, started)
        return Outcome(
            claim=claim,
            change=change,
            code=code,
            status_code=response.status_code if response is not None else None,
            duration=time.monotonic() - started,
            record_receipt=record_receipt,
            may_be_late=may_be_late(result.last),
            receipt_key=key,
            if_taken=if_taken,
        )

    def _if_taken(
        self, claim: Claim, opened: Opened, result: Result, response: Response, started: float
    ) -> Outcome:
        other = replace(result, last=Sent(of_another_record(response)))
        return self._outcome(claim, opened, other, started)


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
