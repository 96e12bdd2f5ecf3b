"""One attempt at one claimed upload: from its sealed body to how it ended."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any

import orjson
import structlog

from relay.authorize import AccessToken, Authorizer, NeedsAuthorization, Person
from relay.errors import SealError
from relay.fhir.tolerances import Tolerances
from relay.fhir.validate import validate
from relay.fhir.versions import FhirVersion
from relay.identity import same_content
from relay.ledger.changes import Change
from relay.ledger.uploads import body_context, receipt_context
from relay.ledger.users import key_context
from relay.ledger.work import Claim, Ended
from relay.lifecycle import Reason, State
from relay.metrics import library_disagreements
from relay.oneup.answers import Answer, Outcome, Receipt
from relay.oneup.client import FhirClient
from relay.retry import Backoff
from relay.sealing import KeyRing, UserKey
from relay.settings import Settings
from relay.turns import NotItsTurn, TokenUnavailable

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Facts:
    """What an attempt learns on its way."""

    claim: Claim
    key: UserKey
    started: float
    deadline: float
    issues: dict[str, Any] | None = None
    token: AccessToken | None = None
    # Whether 1upHealth may hold this content from an earlier attempt. A completed look says no.
    maybe_sent: bool = False
    possible_duplicate: bool | None = None


class Attempter:
    """Attempts uploads. Holds no state of its own; the ledger does."""

    def __init__(
        self, ring: KeyRing, authorizer: Authorizer, fhir: FhirClient, settings: Settings
    ) -> None:
        self._ring = ring
        self._authorizer = authorizer
        self._fhir = fhir
        self._backoff = Backoff(settings.retry_first_seconds, settings.retry_most_seconds)
        self._settle_seconds = settings.settle_seconds
        self._hold_seconds = settings.hold_seconds
        self._parked_seconds = settings.parked_seconds
        self._keeps_ids = settings.oneup_keeps_ids
        self._tolerances = tolerances(settings)
        self._second_opinion = settings.second_opinion
        self._stopping = False

    def stop(self) -> None:
        """Send nothing more: attempts that have not sent yet hand their upload back."""
        self._stopping = True

    async def attempt(self, claim: Claim, deadline: float) -> Ended:
        """Try to deliver a claimed upload; `deadline` is on `time.monotonic`."""
        started = time.monotonic()
        try:
            key = self._ring.unwrap(claim.wrapped_key, key_context(claim.user_id))
            body = key.open(claim.sealed_body, body_context(claim.upload_id))
        except SealError as error:
            unused = UserKey.generate()
            facts = _Facts(claim, unused, started, deadline, maybe_sent=claim.maybe_sent)
            return self._does_not_open(facts, error)
        facts = _Facts(claim, key, started, deadline, maybe_sent=claim.maybe_sent)
        try:
            return await self._validate_and_send(facts, body)
        except NeedsAuthorization:
            return self._end(
                facts,
                State.PARKED,
                Reason.NEEDS_AUTHORIZATION,
                "needs_authorization",
                clock=self._parked_seconds,
            )
        except NotItsTurn as error:
            return self._in_turn(facts, error)
        except SealError as error:
            return self._does_not_open(facts, error)
        except TokenUnavailable as error:
            return self._again(facts, Reason.NO_TOKEN, "no_token", floor=error.retry_after or 0.0)

    def _does_not_open(self, facts: _Facts, error: SealError) -> Ended:
        upload = str(facts.claim.upload_id)
        _log.error("sealed_value_does_not_open", upload=upload, why=str(error))
        return self._again(facts, Reason.HELD, "sealed", floor=self._hold_seconds)

    async def _validate_and_send(self, facts: _Facts, body: bytes) -> Ended:
        claim = facts.claim
        if not claim.validated:
            # Several milliseconds for a large record: not on the loop that all sends share.
            report = await asyncio.to_thread(
                validate,
                body,
                claim.fhir_version,
                tolerances=self._tolerances,
                second_opinion=self._second_opinion,
            )
            facts.issues = report.to_json()
            if report.library_disagreement:
                library_disagreements.labels(claim.fhir_version).inc()
            if not report.valid:
                return self._end(facts, State.REJECTED, Reason.INVALID, "invalid")
        target = self._delivered_as(facts)
        if facts.maybe_sent:
            ended = await self._look_first(facts, body, target)
            if ended is not None:
                return ended
        if claim.outlived:
            return self._end(facts, State.EXPIRED, Reason.GAVE_UP, "gave_up")
        if self._stopping:
            return self._again(facts, Reason.HANDED_BACK, "handed_back", now=True)
        answer = await self._write(facts, body, target)
        if answer.outcome is Outcome.ABSENT and target is not None:
            # What was delivered before is gone: look, and if it really is, create it anew.
            look = await self._look(facts, target)
            if look.outcome is Outcome.ABSENT:
                answer = await self._write(facts, body, None)
        return self._sorted(facts, answer)

    async def _token(self, facts: _Facts, *, refused: int | None = None) -> AccessToken:
        person = Person(facts.claim.user_id, facts.claim.app_user_id, facts.key)
        return await self._authorizer.token(person, refused=refused)

    async def _write(self, facts: _Facts, body: bytes, target: str | None) -> Answer:
        return await self._authorized(
            facts,
            lambda token: self._fhir.write(
                token=token,
                version_path=_path(facts.claim),
                resource_type=facts.claim.resource_type,
                body=body,
                deadline=facts.deadline,
                resource_id=target,
            ),
        )

    async def _look(self, facts: _Facts, resource_id: str) -> Answer:
        return await self._authorized(
            facts,
            lambda token: self._fhir.look(
                token=token,
                version_path=_path(facts.claim),
                resource_type=facts.claim.resource_type,
                resource_id=resource_id,
                deadline=facts.deadline,
            ),
        )

    async def _authorized(self, facts: _Facts, ask: Callable[[str], Awaitable[Answer]]) -> Answer:
        """Ask with the user's token, and once more with a fresh one if it is refused."""
        if facts.token is None:
            facts.token = await self._token(facts)
        answer = await ask(facts.token.value)
        if answer.outcome is Outcome.UNAUTHORIZED:
            facts.token = await self._token(facts, refused=facts.token.version)
            answer = await ask(facts.token.value)
        return answer

    async def _look_first(self, facts: _Facts, body: bytes, target: str | None) -> Ended | None:
        """Ask 1upHealth whether an earlier attempt arrived; None if sending is right."""
        resource: dict[str, Any] = orjson.loads(body)
        own_id = resource.get("id")
        resource_id = target or (own_id if isinstance(own_id, str) and own_id else None)
        if resource_id is None:
            facts.possible_duplicate = True
            return None
        look = await self._look(facts, resource_id)
        if look.outcome is Outcome.FOUND and same_content(resource, look.resource):
            return self._delivered(facts, look, "found")
        if look.outcome not in (Outcome.FOUND, Outcome.ABSENT):
            if facts.claim.outlived:
                return self._end(facts, State.EXPIRED, Reason.GAVE_UP, look.code)
            # A look that fails never permits a re-send.
            return self._again(
                facts, Reason.SETTLING, f"look_{look.code}", floor=look.retry_after or 0.0
            )
        if target is None and not self._keeps_ids:
            # It may be there under an id of 1upHealth's own, where this look cannot find it.
            facts.possible_duplicate = True
        else:
            facts.maybe_sent = False
        return None

    def _delivered_as(self, facts: _Facts) -> str | None:
        """The id under which an older version of this record is at 1upHealth."""
        sealed = facts.claim.record_receipt
        if sealed is None:
            return None
        opened = orjson.loads(facts.key.open(sealed, receipt_context(facts.claim.record_id)))
        return opened["id"] or None

    def _sorted(self, facts: _Facts, answer: Answer) -> Ended:
        match answer.outcome:
            case Outcome.STORED:
                return self._delivered(facts, answer, "stored")
            case Outcome.UNKNOWN:
                facts.maybe_sent = True
                return self._again(
                    facts,
                    Reason.SETTLING,
                    answer.code,
                    answer=answer,
                    floor=max(self._settle_seconds, answer.retry_after or 0.0),
                )
            case Outcome.NOT_SENT | Outcome.BUSY:
                return self._again(
                    facts,
                    Reason.RETRY,
                    answer.code,
                    answer=answer,
                    floor=answer.retry_after or 0.0,
                )
            case Outcome.REFUSED:
                return self._end(
                    facts, State.REFUSED, Reason.UPSTREAM_REFUSED, answer.code, answer=answer
                )
            case Outcome.UNAUTHORIZED | Outcome.HOLD | Outcome.ABSENT | Outcome.FOUND:
                return self._again(
                    facts,
                    Reason.HELD,
                    answer.code,
                    answer=answer,
                    floor=max(self._hold_seconds, answer.retry_after or 0.0),
                )

    def _delivered(self, facts: _Facts, answer: Answer, outcome: str) -> Ended:
        facts.maybe_sent = False
        return self._end(
            facts, State.DELIVERED, None, outcome, answer=answer, receipt=answer.receipt
        )

    def _again(
        self,
        facts: _Facts,
        reason: Reason,
        outcome: str,
        *,
        answer: Answer | None = None,
        floor: float = 0.0,
        now: bool = False,
    ) -> Ended:
        delay = 0.0 if now else self._backoff.delay(facts.claim.attempts, floor=floor)
        return self._end(facts, State.QUEUED, reason, outcome, answer=answer, delay=delay)

    def _in_turn(self, facts: _Facts, error: NotItsTurn) -> Ended:
        """Queue it for its turn. Nothing was tried, so no attempt is spent and no back-off grows;
        were all to come back at once, most would only be told the same again.
        """
        delay = error.retry_after + random.uniform(0.0, error.spread)  # noqa: S311
        return self._end(facts, State.QUEUED, Reason.PACED, error.code, delay=delay, uncounted=True)

    def _end(
        self,
        facts: _Facts,
        target: State,
        reason: Reason | None,
        outcome: str,
        *,
        answer: Answer | None = None,
        receipt: Receipt | None = None,
        delay: float = 0.0,
        clock: float | None = None,
        uncounted: bool = False,
    ) -> Ended:
        claim = facts.claim
        named = orjson.dumps({"id": receipt.id, "version": receipt.version}) if receipt else None
        return Ended(
            claim=claim,
            change=Change(
                upload_id=claim.upload_id,
                source=State.SENDING,
                target=target,
                reason=reason,
                lease_id=claim.lease_id,
                delay=delay,
                clock=clock,
                uncounted=uncounted,
                maybe_sent=facts.maybe_sent,
                possible_duplicate=facts.possible_duplicate,
                last_answer=answer.code if answer else outcome,
                issues=facts.issues,
                sealed_receipt=(
                    facts.key.seal(named, receipt_context(claim.upload_id)) if named else None
                ),
            ),
            outcome=outcome,
            status_code=answer.status_code if answer else None,
            duration=time.monotonic() - facts.started,
            record_receipt=(
                facts.key.seal(named, receipt_context(claim.record_id)) if named else None
            ),
        )


def tolerances(settings: Settings) -> Tolerances:
    """The switches of validation as the settings have them."""
    return Tolerances(
        **{
            switch.name: getattr(settings, f"tolerate_{switch.name}")
            for switch in fields(Tolerances)
        }
    )


def _path(claim: Claim) -> str:
    return FhirVersion(claim.fhir_version).path
