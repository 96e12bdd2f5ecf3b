"""Makes a test Patient, reads, changes and deletes it, and says which promise holds.

It is the only part of the doctor that writes, and only if it is asked to. The Patient has nothing
but an identifier, and is nobody's.
"""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from uplift.destinations.client import FhirClient
from uplift.destinations.destination import Destination, Mode
from uplift.destinations.requests import Put, Upsert
from uplift.destinations.responses import Response, ResponseKind
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.fhir.versions import FhirVersion

PART = "test Patient"

_SYSTEM = "urn:uplift:doctor"
_PATIENT = "Patient"
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of each step; None: it was not tried, since something before it failed.

    `again` is the same write once more, `stale` a change that asks for an older version, `back` one
    after the deletion that asks for the version before it.
    """

    created: Response
    again: Response | None = None
    read: Response | None = None
    changed: Response | None = None
    stale: Response | None = None
    deleted: Response | None = None
    gone: Response | None = None
    back: Response | None = None

    @property
    def proven(self) -> frozenset[str]:
        """The interactions and abilities that it has shown to be there."""
        steps = {
            "updateCreate": self.created,
            "conditionalUpdate": self.created,
            "search-type": self.created,
            "update": self.changed,
            "read": self.read,
            "delete": self.deleted,
        }
        well = (ResponseKind.STORED, ResponseKind.FOUND, ResponseKind.DELETED)
        return frozenset(
            name for name, step in steps.items() if step is not None and step.kind in well
        )


class Tester:
    """The steps at one base."""

    def __init__(
        self, fhir: FhirClient, destination: Destination, version: FhirVersion, authorization: str
    ) -> None:
        self._fhir = fhir
        self._to: dict[str, Any] = {
            "authorization": authorization,
            "version": version,
            "resource_type": _PATIENT,
        }
        self._name = f"uplift-doctor-{secrets.token_hex(8)}"
        self._puts = destination.mode is Mode.PUT

    async def run(self) -> Trial:
        """All steps, as far as they can be done. What is left is deleted."""
        trial = Trial(await self._write())
        if trial.created.kind is not ResponseKind.STORED or not _id(trial.created):
            return trial
        trial = replace(trial, again=await self._write())
        made = {_id(each) for each in (trial.created, trial.again) if each and _id(each)}
        resource_id = str(_id(trial.created))
        try:
            trial = await self._change(trial, resource_id)
        finally:
            deleted = [await self._delete(str(each)) for each in sorted(map(str, made))]
            trial = replace(trial, deleted=deleted[0])
        if trial.deleted is None or trial.deleted.kind is not ResponseKind.DELETED:
            return trial
        return await self._after_deletion(trial, resource_id)

    async def _change(self, trial: Trial, resource_id: str) -> Trial:
        read = await self._look_up(resource_id)
        trial = replace(trial, read=read)
        if read.kind is not ResponseKind.FOUND or read.receipt is None:
            return trial
        version = read.receipt.version
        trial = replace(trial, changed=await self._write("male", version))
        if trial.changed is None or trial.changed.kind is not ResponseKind.STORED:
            return trial
        return replace(trial, stale=await self._write("female", version))

    async def _after_deletion(self, trial: Trial, resource_id: str) -> Trial:
        trial = replace(trial, gone=await self._look_up(resource_id))
        changed = trial.changed
        if changed is None or changed.receipt is None or not changed.receipt.version:
            return trial
        back = await self._write("other", changed.receipt.version)
        if back.kind is ResponseKind.STORED and back.receipt is not None:
            await self._delete(back.receipt.id or resource_id)
        return replace(trial, back=back)

    async def _write(self, gender: str = "", if_match: str | None = None) -> Response:
        patient: dict[str, Any] = {
            "resourceType": _PATIENT,
            "identifier": [{"system": _SYSTEM, "value": self._name}],
        }
        if gender:
            patient["gender"] = gender
        write: Put | Upsert = Upsert(self._name, system=_SYSTEM, if_match=if_match)
        if self._puts:
            patient["id"] = self._name
            write = Put(self._name, if_match)
        body = orjson.dumps(patient)
        return await self._fhir.write(**self._to, write=write, body=body, deadline=_deadline())

    async def _look_up(self, resource_id: str) -> Response:
        return await self._fhir.look_up(**self._to, resource_id=resource_id, deadline=_deadline())

    async def _delete(self, resource_id: str) -> Response:
        return await self._fhir.delete(**self._to, resource_id=resource_id, deadline=_deadline())


def judge_trial(name: str, mode: Mode, trial: Trial) -> list[Finding]:
    """Which promise holds, and which does not. `name` is that of the destination and its base."""
    return list(_judge(name, mode, trial))


def _judge(name: str, mode: Mode, trial: Trial) -> Iterator[Finding]:
    if trial.created.kind is not ResponseKind.STORED:
        yield fail(
            PART,
            f"{name}: it cannot be made ({trial.created.code})",
            _cure_of_create(mode, trial.created),
        )
        return
    yield _once(name, trial)
    if trial.read is not None:
        yield _found(name, trial.read)
    if trial.changed is not None and trial.changed.kind is not ResponseKind.STORED:
        what = f"{name}: a change that names the version that is there is refused"
        do = "Records are created, and their newer versions are refused. Ask the server's operator."
        yield fail(PART, f"{what} ({trial.changed.code})", do)
    if trial.stale is not None:
        yield _others_change(name, trial.stale)
    if trial.deleted is not None:
        yield _deletion(name, trial)
    if trial.gone is not None and trial.gone.kind is not ResponseKind.ABSENT:
        what = f"{name}: what was deleted can still be read ({trial.gone.code})"
        yield fail(PART, what, "Erasing people there would leave what they had.")
    if trial.back is not None and trial.gone is not None:
        yield _stays_deleted(name, trial.back)


def _once(name: str, trial: Trial) -> Finding:
    if trial.again is not None and _id(trial.again) == _id(trial.created):
        return ok(PART, f"{name}: it is made ({trial.created.code}), and once where it comes twice")
    code = trial.again.code if trial.again is not None else "not tried"
    return fail(
        PART,
        f"{name}: where it comes twice, it is not the same resource ({code})",
        "Records that are sent again could be stored twice. In mode upsert the server must find at"
        " once what it stored; where it takes ids of clients, set mode to put.",
    )


def _found(name: str, read: Response) -> Finding:
    if read.kind is ResponseKind.FOUND:
        return ok(PART, f"{name}: what was written can be read")
    do = "Give the deployment's client the right to read: after a refused write Uplift reads."
    return fail(PART, f"{name}: what was written cannot be read ({read.code})", do)


def _others_change(name: str, stale: Response) -> Finding:
    if stale.kind is ResponseKind.CONFLICT:
        return ok(PART, f"{name}: what others change is seen: If-Match is honoured ({stale.code})")
    what = f"{name}: what others change is not seen: If-Match is not looked at ({stale.code})"
    return warn(PART, what, "Let nobody else change what Uplift stores there: it is overwritten.")


def _deletion(name: str, trial: Trial) -> Finding:
    deleted = trial.deleted
    if deleted is not None and deleted.kind is ResponseKind.DELETED:
        shown = f", and a read says so ({trial.gone.code})" if trial.gone is not None else ""
        return ok(PART, f"{name}: it is deleted ({deleted.code}){shown}")
    code = deleted.code if deleted is not None else "not tried"
    return warn(
        PART,
        f"{name}: Patient/{_id(trial.created)} cannot be deleted ({code})",
        "Delete it by hand. Give the deployment's client the right to delete, if people are to be"
        " erased there.",
    )


def _stays_deleted(name: str, back: Response) -> Finding:
    if back.kind is not ResponseKind.STORED:
        return ok(PART, f"{name}: what others delete stays deleted ({back.code})")
    what = f"{name}: what others delete comes back with its next version ({back.code})"
    return warn(PART, what, "Erase people by Uplift, so that nothing newer is sent.")


def _cure_of_create(mode: Mode, created: Response) -> str:
    match created.kind, created.status_code:
        case (ResponseKind.UNAUTHORIZED, _) | (_, 403):
            return "Give the deployment's client the right to write. Its page has the least rights."
        case _, 415:
            return "Set media_type to what the server takes."
        case ResponseKind.BUSY, _:
            return "The server is busy. Try later."
        case _, (400 | 404 | 405 | 409 | 412 | 422) if mode is Mode.PUT:
            return (
                "It takes no ids of clients: let it create what a PUT names (Google:"
                " --enable-update-create), or set mode to upsert."
            )
        case _, (400 | 404 | 405 | 409 | 412 | 422):
            return "It takes no PUT to a search: set mode to put."
    return "See the lines above, and try later."


def _id(response: Response) -> str | None:
    return response.receipt.id if response.receipt is not None else None


def _deadline() -> float:
    return time.monotonic() + _SECONDS
