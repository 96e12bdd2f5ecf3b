"""Where at destinations a user's records are, by what the ledger knows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row

from uplift.destinations.destination import Destination, Mode, Subject
from uplift.destinations.references import PATIENT, may_be_found_by
from uplift.destinations.requests import RECORD_SYSTEM, USER_SYSTEM
from uplift.fhir.versions import FhirVersion
from uplift.identity import receipt_key
from uplift.ledger.destinations import Addresses
from uplift.ledger.leaving_records import RecordRows
from uplift.ledger.uploads import delivery_context, receipt_context
from uplift.ledger.upstream_deletions import NewDeletion, target_context
from uplift.sealing import UserKey

# What a worker notes of an upload that was withdrawn, once no look-up found it.
_LOOKED_UP = "cancelled"


@dataclass(slots=True)
class Targets:
    """Collects what is to be deleted for one user. `lost` counts what cannot be: it may be there,
    and no id of it is known.

    `addresses` are those of the ledger: they say what a destination is that left the settings.
    """

    user_id: UUID
    key: UserKey = field(repr=False)
    destinations: Mapping[str, Destination]
    addresses: Addresses
    new: list[NewDeletion] = field(default_factory=list)
    lost: int = 0

    def add_record(self, record: RecordRows) -> None:
        """Everything that a record may have become."""
        for delivery in record.deliveries:
            receipt = self._open(
                delivery.sealed_receipt, delivery_context(record.record_id, delivery.destination)
            )
            type_ = receipt.get("type") or _type_of(record.uploads, delivery.destination)
            if type_ is None:
                self.lost += 1  # delivered by an earlier version of Uplift, and thinned out since
                continue
            self._add_received(delivery.destination, type_, receipt, record.derived_id)
        for upload in record.uploads:
            type_ = f"{upload.fhir_version}/{upload.resource_type}"
            if upload.sealed_receipt is not None:
                receipt = self._open(upload.sealed_receipt, receipt_context(upload.id))
                self._add_received(upload.destination, type_, receipt, record.derived_id)
            elif upload.attempts:
                self._add_attempted(upload, type_, record.derived_id)
            self._count_copy(upload)

    def add_tombstone(self, row: Row[Any]) -> None:
        """What a delivered upload became of which only a tombstone is left."""
        self._count_copy(row)
        if row.sealed_receipt is not None:
            receipt = self._open(row.sealed_receipt, receipt_context(row.upload_id))
            type_ = f"{row.fhir_version}/{row.resource_type}"
            self._add_received(row.destination, type_, receipt, None)

    def add_patients(self, pseudonym: str, names: Sequence[str]) -> None:
        """The Patient that Uplift made for the user, wherever it may have made one."""
        for name in names:
            destination = self.destinations.get(name)
            # Of one that left the settings nobody knows whether it made them. It does no harm.
            if destination is not None and destination.subject is not Subject.PATIENT:
                continue
            mode = self._mode(name)
            if mode not in (Mode.PUT, Mode.UPSERT):
                continue
            by_search = {"system": USER_SYSTEM, "value": pseudonym, "parameter": "identifier"}
            target = {"id": pseudonym} if mode is Mode.PUT else by_search
            for version in self._versions(name):
                self._add(name, f"{version}/{PATIENT}", target, is_person=True)

    def _mode(self, name: str) -> Mode | None:
        if (destination := self.destinations.get(name)) is not None:
            return destination.mode
        return Mode(self.addresses[name]["mode"]) if name in self.addresses else None

    def _versions(self, name: str) -> list[str]:
        if (destination := self.destinations.get(name)) is not None:
            return [version.value for version in destination.bases]
        return list(self.addresses[name]["bases"])

    def _add_received(
        self, name: str, type_: str, receipt: Mapping[str, Any], derived_id: str | None
    ) -> None:
        if receipt.get("id"):
            self._add(name, type_, {"id": receipt["id"]})
        elif derived_id is None or not self._add_derived(name, type_, derived_id):
            self.lost += 1

    def _add_attempted(self, upload: Row[Any], type_: str, derived_id: str | None) -> None:
        """What was tried and not delivered: it is there under its derived id, or it is lost."""
        if derived_id is not None and self._add_derived(upload.destination, type_, derived_id):
            return
        if upload.maybe_sent and upload.last_response != _LOOKED_UP:
            self.lost += 1

    def _add_derived(self, name: str, type_: str, derived_id: str) -> bool:
        match self._mode(name):
            case Mode.PUT:
                self._add(name, type_, {"id": derived_id})
            case Mode.UPSERT:
                version, _, resource_type = type_.partition("/")
                for parameter in may_be_found_by(FhirVersion(version), resource_type):
                    found_by = {"system": RECORD_SYSTEM, "value": derived_id}
                    self._add(name, type_, {**found_by, "parameter": parameter})
            case _:
                return False
        return True

    def _count_copy(self, row: Row[Any]) -> None:
        # The copy has an id that nobody was told.
        self.lost += bool(row.possible_duplicate)

    def _add(
        self, name: str, type_: str, target: Mapping[str, str], *, is_person: bool = False
    ) -> None:
        version, _, resource_type = type_.partition("/")
        sealed = orjson.dumps(target, option=orjson.OPT_SORT_KEYS)
        key = receipt_key(
            self.key.identity_key,
            fhir_version=version,
            resource_type=resource_type,
            resource_id=sealed.decode(),
        )
        self.new.append(
            NewDeletion(
                destination=name,
                key=key,
                fhir_version=version,
                resource_type=resource_type,
                sealed_target=self.key.seal(sealed, target_context(self.user_id, key)),
                is_person=is_person,
            )
        )

    def _open(self, sealed: bytes, context: bytes) -> dict[str, Any]:
        opened: dict[str, Any] = orjson.loads(self.key.open(sealed, context))
        return opened


def _type_of(uploads: Sequence[Row[Any]], destination: str) -> str | None:
    types: Iterator[str] = (
        f"{each.fhir_version}/{each.resource_type}"
        for each in uploads
        if each.destination == destination
    )
    return next(types, None)
