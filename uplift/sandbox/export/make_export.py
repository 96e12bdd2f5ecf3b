"""Writes apple-health-export.zip: a synthetic person's records from two hospitals.

    uplift example-export apple-health-export.zip

The same seed gives the same bytes: nothing in it comes from the clock or the machine.
"""

import dataclasses
import itertools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uplift.sandbox.export import broken, export_index, hospital_a, hospital_b
from uplift.sandbox.export.entry import Entry, uuid_of

SEED = 20250115
_ROOT = "apple_health_export"
_WRITTEN = (2025, 1, 15, 9, 30, 0)


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """One record of the export."""

    path: str
    """Of its file, as in `clinical-records/Condition-….json`."""
    resource_type: str
    fhir_version: str
    source: str
    record_id: str
    fault: str | None
    """The element at fault, as in `Observation.code`, if the record is broken on purpose."""
    defect: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in an export, to compare with what arrived."""

    records: tuple[ManifestRecord, ...]
    """Those with a file, in the order of export.xml."""
    missing: tuple[ManifestRecord, ...]
    """Those that export.xml lists without there being a file."""

    @property
    def valid(self) -> tuple[ManifestRecord, ...]:
        """Those that must arrive."""
        return tuple(record for record in self.records if record.fault is None)

    @property
    def broken(self) -> tuple[ManifestRecord, ...]:
        """Those that must be rejected."""
        return tuple(record for record in self.records if record.fault is not None)


def write_export(path: Path, *, records: int | None = None, seed: int = SEED) -> Manifest:
    """Write the export to `path` and tell what is in it.

    Args:
        path: of the zip archive; replaced if it exists.
        records: how many records export.xml shall list; home glucose readings fill the number up.
            None: as many as the two hospitals have.
        seed: another one gives another person's figures.

    Raises:
        ValueError: fewer `records` than the two hospitals have.
    """
    told: list[ManifestRecord] = []
    missing: list[ManifestRecord] = []
    with zipfile.ZipFile(path, "w") as archive:
        listed: list[tuple[Entry, str]] = []
        for number, entry in enumerate(_entries(records, seed)):
            name = f"{entry.type}-{uuid_of(seed, 'file', number).upper()}.json"
            record = _told(entry, f"clinical-records/{name}")
            if entry.with_file:
                told.append(record)
                _add(archive, record.path, entry.body)
            else:
                missing.append(record)
            # Only the index needs it from here on; notes are large.
            slim = {"resourceType": entry.type, "id": entry.resource["id"]}
            listed.append((dataclasses.replace(entry, resource=slim), f"/{record.path}"))
        index = export_index.lines(listed, samples=600, seed=seed)
        _add(archive, "export.xml", "".join(index).encode())
        _add(archive, "export_cda.xml", b'<?xml version="1.0"?>\n<ClinicalDocument/>\n')
    return Manifest(tuple(told), tuple(missing))


_WITHOUT_URL = 11
_WITHOUT_FILE = 17


def _entries(records: int | None, seed: int) -> Iterator[Entry]:
    base = [*hospital_a.entries(seed), *hospital_b.entries(seed), *broken.entries(seed)]
    base[_WITHOUT_FILE] = dataclasses.replace(base[_WITHOUT_FILE], with_file=False)
    base[_WITHOUT_URL] = dataclasses.replace(base[_WITHOUT_URL], with_url=False)
    if records is not None and records < len(base):
        raise ValueError(f"The two hospitals have {len(base)} records; {records} are too few.")
    more = (records or len(base)) - len(base)
    # The files lie in the order in which they came to the phone: both versions mixed.
    base.sort(key=lambda entry: uuid_of(seed, "order", _key(entry)))
    return itertools.chain(base, hospital_b.home_readings(seed, more))


def _key(entry: Entry) -> str:
    return f"{entry.hospital.name}/{entry.type}/{entry.resource['id']}"


def _told(entry: Entry, path: str) -> ManifestRecord:
    return ManifestRecord(
        path=path,
        resource_type=entry.type,
        fhir_version=entry.hospital.fhir_version,
        source=entry.hospital.name,
        record_id=str(entry.resource["id"]),
        fault=entry.fault,
        defect=entry.defect,
    )


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    # ZipFile would take the clock's time and the machine's kind.
    info = zipfile.ZipInfo(f"{_ROOT}/{name}", date_time=_WRITTEN)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)
