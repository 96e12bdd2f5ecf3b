"""Makes the Patient that stands for a person at a destination: once, before their first record.

Where the backend named one, it makes none, and writes none.
"""

import asyncio
from collections import OrderedDict
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import orjson

from uplift.delivery.calls import Calls
from uplift.delivery.results import Opened
from uplift.destinations.derived_ids import patient_id
from uplift.destinations.destination import Mode
from uplift.destinations.references import PATIENT
from uplift.destinations.requests import USER_SYSTEM, Put, Upsert
from uplift.destinations.responses import Response, ResponseKind
from uplift.ledger import named_patients
from uplift.ledger.database import Database

# Persons whose Patient this process has seen. A forgotten one costs one more read.
_MAX_REMEMBERED = 100_000
_THERE = (ResponseKind.FOUND, ResponseKind.STORED)

_Key = tuple[UUID, str, str]  # the user, the destination and the FHIR version


class Persons:
    """Knows the Patients of persons. It never changes one that is there."""

    def __init__(self, database: Database, calls: Calls, id_key: bytes) -> None:
        self._database = database
        self._calls = calls
        self._id_key = id_key
        self._known: OrderedDict[_Key, str] = OrderedDict()
        self._asking: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    async def is_missing(self, opened: Opened) -> bool:
        """Whether the Patient that this process remembers, and made, is not there any more.

        Then it is remembered no longer: `reference` makes it again. Raises what `Calls` raises.
        """
        claim = opened.claim
        key = (claim.user_id, claim.destination, claim.fhir_version)
        known = self._known.get(key)
        if known is None or await self._named(opened) is not None:
            return False
        resource_id = known.partition("/")[2]
        found = await self._calls.look_up(opened, resource_id, resource_type=PATIENT)
        if found.kind is not ResponseKind.ABSENT:
            return False
        if self._known.get(key) == known:
            del self._known[key]
        return True

    async def reference(self, opened: Opened) -> str | Response:
        """The reference to the person's Patient: the named one, or else Uplift's, there now.

        The response that says why not, if it is not. Raises what `Calls` raises.
        """
        claim = opened.claim
        key = (claim.user_id, claim.destination, claim.fhir_version)
        if (known := self._known.get(key)) is not None:
            return known
        lock = self._asking.get(key)
        if lock is None:
            lock = self._asking[key] = asyncio.Lock()
        # Of a person's first records one asks, and the others wait for it.
        async with lock:
            if (known := self._known.get(key)) is not None:
                return known
            resource_id = await self._named(opened)
            if resource_id is None:
                found = await self._find_or_make(opened)
                if found.kind not in _THERE or found.receipt is None or not found.receipt.id:
                    return found
                resource_id = found.receipt.id
            reference = self._known[key] = f"{PATIENT}/{resource_id}"
            if len(self._known) > _MAX_REMEMBERED:
                self._known.popitem(last=False)
            return reference

    async def _named(self, opened: Opened) -> str | None:
        """The id of the Patient that the backend named: it is theirs to make, and to keep."""
        claim = opened.claim
        async with self._database.transaction() as connection:
            patients = await named_patients.read(connection, claim.user_id, opened.key)
        return patients.get(claim.destination)

    async def _find_or_make(self, opened: Opened) -> Response:
        pseudonym = patient_id(self._id_key, app_user_id=opened.claim.app_user_id)
        patient: dict[str, Any] = {
            "resourceType": PATIENT,
            "identifier": [{"system": USER_SYSTEM, "value": pseudonym}],
        }
        write: Put | Upsert
        if self._calls.destination(opened).mode is Mode.UPSERT:
            write = Upsert(pseudonym, system=USER_SYSTEM)
            found = await self._calls.match(opened, write, resource_type=PATIENT)
        else:
            write = Put(pseudonym)
            patient["id"] = pseudonym
            found = await self._calls.look_up(opened, pseudonym, resource_type=PATIENT)
        if found.kind is not ResponseKind.ABSENT:
            return found
        body = orjson.dumps(patient)
        return await self._calls.write(opened, write, body, resource_type=PATIENT)
