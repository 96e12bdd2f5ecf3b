"""One attempt at one claimed upload: open, validate, look, send."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

import orjson
import structlog

from relay.authorize import AccessToken, Authorizer, NeedsAuthorization, Person
from relay.ending import Endings, Facts
from relay.errors import SealError
from relay.fhir.tolerances import Tolerances
from relay.fhir.validate import validate
from relay.fhir.versions import FhirVersion
from relay.identity import same_content
from relay.ledger.uploads import body_context, receipt_context
from relay.ledger.users import key_context
from relay.ledger.work import Claim, Ended
from relay.lifecycle import Reason
from relay.metrics import library_disagreements
from relay.oneup.answers import Answer, Outcome
from relay.oneup.client import FhirClient
from relay.sealing import KeyRing, UserKey
from relay.settings import Settings
from relay.turns import NotItsTurn, TokenUnavailable

_log = structlog.get_logger(__name__)

# Legal FHIR ids that are no path segment: they cannot be looked up.
_UNADDRESSABLE = frozenset({"", ".", ".."})


class _Stopping(Exception):
    """The process is to stop, and this upload is not sent yet."""


class Attempter:
    """Attempts uploads. Holds no state of theirs; the ledger does."""

    def __init__(
        self, ring: KeyRing, authorizer: Authorizer, fhir: FhirClient, settings: Settings
    ) -> None:
        self._ring = ring
        self._authorizer = authorizer
        self._fhir = fhir
        self._endings = Endings(settings)
        self._keeps_ids = settings.oneup_keeps_ids
        self._tolerances = tolerances(settings)
        self._second_opinion = settings.second_opinion
        self._stopping = False

    def stop(self) -> None:
        """Send nothing more: attempts that have not sent yet hand their upload back."""
        self._stopping = True

    async def attempt(self, claim: Claim, deadline: float) -> Ended:
        """Try to deliver a claimed upload; `deadline` is on `time.monotonic`.

        Raises nothing: whatever goes wrong is a way to end.
        """
        # Until its own key is unwrapped, one that opens nothing stands in.
        facts = Facts(claim, UserKey.generate(), time.monotonic(), deadline, claim.maybe_sent)
        upload = str(claim.upload_id)
        try:
            facts.key = self._ring.unwrap(claim.wrapped_key, key_context(claim.user_id))
            body = facts.key.open(claim.sealed_body, body_context(claim.upload_id))
            return await self._validate_and_send(facts, body)
        except _Stopping:
            return self._endings.handed_back(facts)
        except NeedsAuthorization:
            return self._endings.parked(facts)
        except NotItsTurn as error:
            return self._endings.in_turn(facts, error)
        except TokenUnavailable as error:
            floor = error.retry_after or 0.0
            return self._endings.again(facts, Reason.NO_TOKEN, "no_token", floor=floor)
        except SealError as error:
            _log.error("sealed_value_does_not_open", upload=upload, why=str(error))
            return self._endings.held(facts, "sealed")
        except Exception as error:  # noqa: BLE001  one upload must not take the others with it
            _log.error("attempt_failed", upload=upload, error=type(error).__name__)
            return self._endings.failed(facts, error)

    async def _validate_and_send(self, facts: Facts, body: bytes) -> Ended:
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
                return self._endings.rejected(facts)
        target = self._delivered_as(facts)
        if facts.maybe_sent:
            ended = await self._look_first(facts, body, target)
            if ended is not None:
                return ended
        if claim.outlived:
            return self._endings.expired(facts)
        answer = await self._write(facts, body, target)
        if answer.outcome is Outcome.ABSENT and target is not None:
            # What was delivered before is gone: look, and if it really is, create it anew.
            look = await self._look(facts, target)
            if look.outcome is Outcome.ABSENT:
                answer = await self._write(facts, body, None)
        return self._endings.of_write(facts, answer)

    async def _look_first(self, facts: Facts, body: bytes, target: str | None) -> Ended | None:
        """Ask 1upHealth whether an earlier attempt arrived; None if sending is right."""
        resource: dict[str, Any] = orjson.loads(body)
        own_id = resource["id"] if isinstance(resource.get("id"), str) else None
        # An update went to the target; a create is under its own id, if 1upHealth keeps ids.
        ids = [id_ for id_ in (target, own_id) if id_ is not None and id_ not in _UNADDRESSABLE]
        looks = {}
        for resource_id in dict.fromkeys(ids):
            look = looks[resource_id] = await self._look(facts, resource_id)
            if look.outcome is Outcome.FOUND and same_content(resource, look.resource):
                return self._endings.delivered(facts, look, "found")
            if look.outcome not in (Outcome.FOUND, Outcome.ABSENT):
                # A look that fails never permits a re-send.
                floor = look.retry_after or 0.0
                code = f"look_{look.code}"
                return self._endings.again(facts, Reason.SETTLING, code, floor=floor)
        # While the target is there, only updates of it were sent, and none arrived.
        updates_only = target in looks and looks[target].outcome is Outcome.FOUND
        if updates_only or (self._keeps_ids and own_id in looks):
            facts.maybe_sent = False
        else:
            # It may be there under an id of 1upHealth's own, where no look by id finds it.
            facts.unsure = True
        return None

    def _delivered_as(self, facts: Facts) -> str | None:
        """The id under which an older version of this record is at 1upHealth."""
        sealed = facts.claim.record_receipt
        if sealed is None:
            return None
        opened = orjson.loads(facts.key.open(sealed, receipt_context(facts.claim.record_id)))
        return opened["id"] or None

    async def _write(self, facts: Facts, body: bytes, target: str | None) -> Answer:
        async def send(token: AccessToken) -> Answer:
            # Getting the token may have taken a while.
            if self._stopping:
                raise _Stopping
            facts.writing = True
            return await self._fhir.write(
                token=token.value,
                version_path=_path(facts.claim),
                resource_type=facts.claim.resource_type,
                body=body,
                deadline=facts.deadline,
                resource_id=target,
            )

        answer = await self._authorized(facts, send)
        # Whatever comes next, only an answer that leaves it open may still count as sent.
        facts.writing = answer.outcome in (Outcome.STORED, Outcome.UNKNOWN)
        return answer

    async def _look(self, facts: Facts, resource_id: str) -> Answer:
        return await self._authorized(
            facts,
            lambda token: self._fhir.look(
                token=token.value,
                version_path=_path(facts.claim),
                resource_type=facts.claim.resource_type,
                resource_id=resource_id,
                deadline=facts.deadline,
            ),
        )

    async def _authorized(
        self, facts: Facts, ask: Callable[[AccessToken], Awaitable[Answer]]
    ) -> Answer:
        """Ask with the user's token, and once more with a fresh one if it is refused."""
        person = Person(facts.claim.user_id, facts.claim.app_user_id, facts.key)
        token = await self._authorizer.token(person)
        answer = await ask(token)
        if answer.outcome is Outcome.UNAUTHORIZED:
            facts.writing = False
            token = await self._authorizer.token(person, refused=token.version)
            answer = await ask(token)
        return answer


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
