"""Apple's *Export All Health Data*: the clinical records that its index names.

The index, `export.xml`, has another name on phones in other languages, so it is found by its
content. It alone says of which hospital and in which version of FHIR a record is.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePosixPath

from uplift.cli.push.files import Files, kind_in
from uplift.cli.push.health_index import clinical_elements
from uplift.cli.push.kinds import Kind
from uplift.cli.push.notes import Notes
from uplift.cli.push.records import (
    MAX_RECORD_BYTES,
    Record,
    Skipped,
    date_of,
    resource_type_of,
)
from uplift.cli.push.zip_members import UnreadableFile

RECORDS = "clinical-records"
PARTS = frozenset({RECORDS, "workout-routes", "electrocardiograms"})
"""The folders that Apple puts beside the index."""
NOT_NAMED = "no index names it, so its hospital and its version of FHIR are unknown; not sent"


def indexes_in(files: Files) -> list[str]:
    """The files that are indexes of exports; in one folder, only one with the usual name."""
    # Names first: to look into every file of an archive means to unpack it.
    likely = [name for name in files.names if _may_be_index(name)]
    found = [name for name in likely if _is_index(files, name)]
    if not found and any(f"/{RECORDS}/" in f"/{name}" for name in files.names):
        others = (name for name in files.names if not _is_part(name) and name not in likely)
        found = [name for name in others if _is_index(files, name)]
    return found


def clinical_records(
    files: Files,
    root: str,
    indexes: list[str],
    notes: Notes,
    *,
    fhir_version: str | None = None,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Iterator[Record | Skipped | None]:
    """Every record that `indexes` name in the folder `root`; then those that none names.

    None means: a part of the index had no record, and the caller may do other things.
    `fhir_version` is used for records that state none: exports from before iOS 14.
    """
    folder = f"{root}{RECORDS}/"
    unnamed = dict.fromkeys(name for name in files.names if name.startswith(folder))
    for number, index in enumerate(indexes):
        left = frozenset(unnamed) if number else None
        try:
            with files.open(index) as file:
                for attributes in clinical_elements(file, index.removeprefix(root), notes):
                    if attributes is None:
                        yield None
                        continue
                    path = attributes.get("resourceFilePath", "").lstrip("/")
                    name = root + path
                    if left is not None and name not in left:
                        continue  # another index of the same files has named it
                    unnamed.pop(name, None)
                    yield _record(files, name, path, attributes, fhir_version, max_record_bytes)
        except (KeyError, UnreadableFile, OSError) as error:
            notes.lose(index, reason_of(error))
    for name in unnamed:
        yield Skipped(name.removeprefix(root), NOT_NAMED)


def roots_of(files: Files) -> dict[str, list[str]]:
    """The folder of each export, with a `/` at its end or empty, and its indexes.

    It is the index's own; or, if the index was moved, the only one with records.
    """
    with_records = {
        name[: -len(RECORDS) - 1]
        for name in {each.rpartition("/")[0] + "/" for each in files.names}
        if name == f"{RECORDS}/" or name.endswith(f"/{RECORDS}/")
    }
    found: dict[str, list[str]] = {}
    for index in indexes_in(files):
        folder, slash, _ = index.rpartition("/")
        root = folder + slash
        if root not in with_records and len(with_records) == 1:
            (root,) = with_records
        found.setdefault(root, []).append(index)
    return found


def _may_be_index(name: str) -> bool:
    return name.lower().endswith(".xml") and not name.lower().endswith("_cda.xml")


def _is_part(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in (".json", ".gpx", ".csv")


def _is_index(files: Files, name: str) -> bool:
    try:
        return kind_in(files, name) is Kind.INDEX
    except (UnreadableFile, OSError):
        return False


def _record(
    files: Files,
    name: str,
    path: str,
    attributes: dict[str, str],
    fhir_version: str | None,
    max_bytes: int,
) -> Record | Skipped:
    stated_type = attributes.get("type")
    hospital = attributes.get("sourceName")
    label = path or f"ClinicalRecord {attributes.get('identifier', 'without identifier')}"
    version = attributes.get("fhirVersion") or fhir_version
    record_id = attributes.get("identifier")
    missing = [
        each
        for each, value in {
            "resourceFilePath": path,
            "identifier": record_id,
            "sourceName": hospital,
            "fhirVersion": version,
        }.items()
        if not value
    ]
    if missing or version is None:
        reason = f"the index gives it no {' and no '.join(missing)}"
        return Skipped(label, reason, stated_type, hospital)
    try:
        body = files.read(name, max_bytes + 1)
    except KeyError:
        reason = "the index lists it, but its file is not in the export"
        return Skipped(label, reason, stated_type, hospital)
    except (UnreadableFile, OSError) as error:
        return Skipped(label, reason_of(error), stated_type, hospital)
    if len(body) > max_bytes:
        return Skipped(label, f"larger than {max_bytes // 1024:,} KiB", stated_type, hospital)
    resource_type = resource_type_of(body)
    if resource_type is None:
        reason = "not a JSON object with a resourceType"
        return Skipped(label, reason, stated_type, hospital)
    date = date_of(body) or attributes.get("receivedDate", "")[:10] or None
    return Record(
        *(label, version, resource_type, body, hospital, record_id, hospital, date),
        source_url=attributes.get("sourceURL"),
        received_at=_received_at(attributes.get("receivedDate")),
    )


def _received_at(date: str | None) -> str | None:
    """Apple's `2020-08-06 05:01:22 -0800` as ISO 8601; None if it is written in another way."""
    try:
        return datetime.strptime(date or "", "%Y-%m-%d %H:%M:%S %z").isoformat()
    except ValueError:
        return None


def reason_of(error: Exception) -> str:
    """Why a file could not be read."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return str(error)
