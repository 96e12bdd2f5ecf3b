"""Delivers an upload to an id that Uplift derives: whatever is sent again, is stored once.

So an unknown outcome needs no look-up: the same version is sent again. What needs a read is what
the destination refuses because of what is there, and the first send after a restore.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, replace

import orjson

from uplift.delivery.after_conflict import Next, Refused, after_conflict, after_deletion
from uplift.delivery.calls import Calls
from uplift.delivery.meeting import Meeting
from uplift.delivery.persons import Persons
from uplift.delivery.reconcile import needs_equal_content, written_after
from uplift.delivery.results import (
    AwaitsReference,
    Cancelled,
    DeletedFound,
    ForeignFound,
    Found,
    LastStep,
    LookUpFailed,
    NewerFound,
    Opened,
    PastDeadline,
    Sent,
    Unprepared,
)
from uplift.delivery.targets import Targets
from uplift.destinations.derived_ids import source_system
from uplift.destinations.destination import Mode, Subject
from uplift.destinations.references import (
    Resource,
    Rewriting,
    found_by,
    literal_targets,
    parse_with_references,
    rewritten,
    write,
)
from uplift.destinations.requests import Entry, Put, Upsert
from uplift.destinations.responses import Response, ResponseKind
from uplift.destinations.same_content import same_content
from uplift.fhir.versions import FhirVersion

# A thread reads and rewrites what is larger: meanwhile nothing else could run on the loop.
_MAX_INLINE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class _Form:
    """A record as its destination gets it, and where it is written."""

    body: bytes
    write: Put | Upsert
    refers_to: frozenset[str]


class DerivedDelivery:
    """Delivers uploads to destinations that know a record by a derived id."""

    def __init__(self, calls: Calls, persons: Persons, targets: Targets) -> None:
        self._calls = calls
        self._persons = persons
        self._targets = targets
        self._versions: set[tuple[str, str]] = set()  # that a destination was seen to be of
        self._asking: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def deliver(
        self, opened: Opened, meeting: Meeting | None = None
    ) -> tuple[LastStep, bytes | None]:
        """One attempt: its last step, and the body that was sent or looked for.

        Its first write is that of the `meeting`, if there is one. Raises what `Calls` raises.
        """
        claim = opened.claim
        ending = _ending(opened)
        if ending is not None and not claim.maybe_sent:
            return ending, None
        form = await self._prepare(opened)
        if not isinstance(form, _Form):
            return form, None
        if ending is not None:
            return await self._end(opened, form, ending), form.body
        if claim.read_first:
            return await self._read_and_send(opened, form), form.body
        return await self._send(opened, form, opened.delivered_version, meeting), form.body

    async def _end(self, opened: Opened, form: _Form, ending: Cancelled | PastDeadline) -> LastStep:
        """It ends without another send. If it has arrived, it is delivered."""
        found = await self._read(opened, form)
        match found.kind:
            case ResponseKind.FOUND if _is_ours(opened, form, found):
                return Found(found)
            case ResponseKind.FOUND | ResponseKind.ABSENT:
                return ending
        return LookUpFailed(found)

    # --- what is sent ------------------------------------------------------------------------

    async def _prepare(self, opened: Opened) -> _Form | LastStep:
        """Everything that must be there before the record is."""
        claim = opened.claim
        destination = self._calls.destination(opened)
        if claim.derived_id is None:
            return Unprepared(Response(ResponseKind.HOLD, "no_derived_id"))
        if (wrong := await self._other_version(opened)) is not None:
            return Unprepared(wrong)
        patient = None
        if destination.subject is Subject.PATIENT:
            found = await self._persons.reference(opened)
            if isinstance(found, Response):
                return Unprepared(found)
            patient = found
        small = len(opened.body) <= _MAX_INLINE_BYTES
        if small:
            resource, references = parse_with_references(opened.body)
        else:
            resource, references = await asyncio.to_thread(parse_with_references, opened.body)
        names = literal_targets(resource, references, but_patient=True)
        targets = await self._targets.find(opened, names)
        if isinstance(targets, AwaitsReference):
            if _ending(opened) is None:
                return targets
            targets = {}
        rules = Rewriting(
            version=FhirVersion(claim.fhir_version),
            own_id=claim.derived_id if destination.mode is Mode.PUT else None,
            record_identifier=claim.derived_id if destination.mode is Mode.UPSERT else None,
            source_system=source_system(claim.source_key),
            patient=patient,
            targets=targets,
        )
        if small:
            return _form(resource, references, rules, claim.derived_id)
        return await asyncio.to_thread(_form, resource, references, rules, claim.derived_id)

    async def _other_version(self, opened: Opened) -> Response | None:
        """Why the server is not known to be of the record's FHIR version; None if it is.

        Asked once a process.
        """
        key = (opened.claim.destination, opened.claim.fhir_version)
        if key in self._versions:
            return None
        # One asks, and the others of the first claim wait for it.
        async with self._asking[key]:
            if key in self._versions:
                return None
            seen = await self._calls.check_version(opened)
            if seen.kind is not ResponseKind.FOUND:
                return seen
            self._versions.add(key)
            return None

    # --- the requests ------------------------------------------------------------------------

    async def _send(
        self, opened: Opened, form: _Form, if_match: str | None, meeting: Meeting | None = None
    ) -> LastStep:
        sent = await self._write(opened, form, if_match, meeting)
        if sent.response.kind is not ResponseKind.CONFLICT:
            return sent
        found = await self._read(opened, form)
        refused = Refused(
            if_match=if_match,
            older_in_doubt=opened.claim.older_in_doubt,
            decided=opened.claim.redriven,
        )
        destination = self._calls.destination(opened)
        is_ours = _is_ours(opened, form, found)
        match after_conflict(refused, found, destination, is_ours=is_ours):
            case Next.DELIVERED:
                return Found(found)
            case Next.FOREIGN:
                return ForeignFound(found)
            case Next.DELETED:
                return DeletedFound(found)
            case Next.SEVERAL:
                # To send it again changes nothing, until somebody removes all but one.
                return Sent(replace(found, kind=ResponseKind.REFUSED))
            case Next.CREATE:
                return await self._write(opened, form, None)
            case Next.OVERWRITE:
                return await self._write(opened, form, _version(found))
            case Next.OVERWRITE_FOREIGN:
                return replace(await self._write(opened, form, _version(found)), overwrote=True)
            case Next.SEND_AGAIN | Next.READ_AGAIN:
                return sent

    async def _lost_person(self, opened: Opened) -> bool:
        by_patient = self._calls.destination(opened).subject is Subject.PATIENT
        return by_patient and await self._persons.is_missing(opened)

    async def _read_and_send(self, opened: Opened, form: _Form) -> LastStep:
        """The first send after a restore: the ledger may not know what is there."""
        claim = opened.claim
        found = await self._read(opened, form)
        match found.kind:
            case ResponseKind.FOUND if _is_ours(opened, form, found):
                return Found(found)
            case ResponseKind.FOUND if _is_newer(opened, found):
                return NewerFound()
            case ResponseKind.FOUND:
                return await self._send(opened, form, _version(found))
            case ResponseKind.ABSENT if claim.record_receipt is not None:
                destination = self._calls.destination(opened)
                if after_deletion(destination, decided=claim.redriven) is Next.DELETED:
                    return DeletedFound(found)
                return await self._send(opened, form, None)
            case ResponseKind.ABSENT:
                return await self._send(opened, form, None)
        return LookUpFailed(found)

    async def _write(
        self, opened: Opened, form: _Form, if_match: str | None, meeting: Meeting | None = None
    ) -> Sent:
        match form.write:
            case Put(resource_id):
                write: Put | Upsert = Put(resource_id, if_match)
            case Upsert(value, parameter):
                write = Upsert(value, parameter, if_match=if_match)
        if meeting is not None:
            entry = Entry(opened.claim.resource_type, write, form.body)
            response, together = await meeting.write(opened, entry, form.refers_to)
            return Sent(response, conditional=bool(if_match), together=together)
        response = await self._calls.write(opened, write, form.body)
        if response.kind is ResponseKind.REFUSED and await self._lost_person(opened):
            # Somebody deleted the Patient: the next attempt makes it again.
            response = replace(response, kind=ResponseKind.LOCKED)
        return Sent(response, conditional=bool(if_match))

    async def _read(self, opened: Opened, form: _Form) -> Response:
        match form.write:
            case Put(resource_id):
                return await self._calls.look_up(opened, resource_id)
            case Upsert() as upsert:
                return await self._calls.match(opened, upsert)


def _form(
    resource: Resource, references: list[Resource], rules: Rewriting, derived_id: str
) -> _Form:
    resource = rewritten(resource, rules, references)
    if rules.own_id is not None:
        target: Put | Upsert = Put(derived_id)
    else:
        target = Upsert(derived_id, found_by(resource, derived_id))
    refers_to = literal_targets(resource, references, but_patient=False)
    return _Form(write(resource), target, refers_to)


def _ending(opened: Opened) -> Cancelled | PastDeadline | None:
    if opened.claim.cancel_requested:
        return Cancelled()
    return PastDeadline() if opened.claim.past_deadline else None


def _is_ours(opened: Opened, form: _Form, found: Response) -> bool:
    exactly = needs_equal_content(
        found.receipt,
        delivered_id=opened.delivered_id,
        delivered_version=opened.delivered_version,
        older_without_receipt=opened.has_older_without_receipt,
    )
    return same_content(orjson.loads(form.body), found.resource, exactly=exactly)


def _is_newer(opened: Opened, found: Response) -> bool:
    """Whether it is newer than the restored ledger. That ends only what was accepted before."""
    since = opened.claim.newer_since
    if since is None:
        return False
    return written_after(found.resource or {}, since, known_version=opened.delivered_version)


def _version(found: Response) -> str | None:
    return found.receipt.version if found.receipt is not None else None
