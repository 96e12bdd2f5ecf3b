"""Apple Health exports for tests, good and bad, and what a push finds in them."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from uplift.cli.push.notes import Notes
from uplift.cli.push.records import MAX_RECORD_BYTES, Record, Skipped
from uplift.cli.push.sources import Source

DTD = """<!DOCTYPE HealthData [
<!-- HealthKit Export Version: 14 -->
<!ELEMENT HealthData (ExportDate,Me,(Record|ClinicalRecord)*)>
<!ATTLIST HealthData locale CDATA #REQUIRED>
<!ELEMENT ClinicalRecord EMPTY>
]>"""
CONDITION = b'{ "resourceType":"Condition",\n "id": "c1", "x": 0.40 }'


def element(path: str = "/clinical-records/Condition-1.json", **changes: str | None) -> str:
    """An element of the index."""
    attributes: dict[str, str | None] = {
        "type": "Condition",
        "identifier": "c1",
        "sourceName": "Hospital &amp; Clinic",
        "sourceURL": "https://fhir.example.org/Condition/c1",
        "fhirVersion": "4.0.1",
        "receivedDate": "2020-08-06 05:01:22 -0800",
        "resourceFilePath": path,
    }
    attributes.update(changes)
    written = " ".join(
        f'{name}="{value}"' for name, value in attributes.items() if value is not None
    )
    return f"<ClinicalRecord {written}/>"


def document(*elements: str, dtd: str = DTD) -> str:
    """An index."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{dtd}\n<HealthData locale="en_US">\n'
        ' <ExportDate value="2025-01-15 09:30:00 -0300"/>\n'
        ' <Record type="HKQuantityTypeIdentifierStepCount" value="3"/>\n'
        + "\n".join(elements)
        + "\n</HealthData>\n"
    )


def archive(folder: Path, xml: str | bytes, files: dict[str, bytes] | None = None) -> Path:
    """An export in an archive."""
    path = folder / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("apple_health_export/export.xml", xml)
        zipped.writestr("apple_health_export/export_cda.xml", "<ClinicalDocument/>")
        for name, data in (files or {"clinical-records/Condition-1.json": CONDITION}).items():
            zipped.writestr(f"apple_health_export/{name}", data)
    return path


def read(
    path: Path,
    max_record_bytes: int = MAX_RECORD_BYTES,
    *,
    fhir_version: str | None = None,
    notes: Notes | None = None,
) -> list[Record | Skipped]:
    """What a push finds at `path`."""
    source = Source(path, fhir_version, max_record_bytes, notes)
    return [item for item in source.records() if item is not None]


def observation(number: int) -> bytes:
    """A record that states neither its hospital nor its version."""
    return json.dumps(
        {"resourceType": "Observation", "id": f"o{number}", "status": "final"}
    ).encode()


def records(count: int = 5, version: str = "4.0.1", **changes: str) -> list[str]:
    """Elements of an index, for the files of `files`."""
    return [
        element(
            f"/clinical-records/Observation-{number}.json",
            **{
                "type": "Observation",
                "identifier": f"o{number}",
                "sourceURL": f"https://fhir.example.org/Observation/o{number}",
                "fhirVersion": version,
                **changes,
            },
        )
        for number in range(count)
    ]


def files(count: int = 5) -> dict[str, bytes]:
    """The files of an export's records."""
    return {
        f"clinical-records/Observation-{number}.json": observation(number)
        for number in range(count)
    }


def members(
    index: str = "export.xml",
    root: str = "apple_health_export/",
    *more: str,
    count: int = 5,
) -> dict[str, bytes]:
    """A whole export, by the paths of its files: the records first, as iOS writes it."""
    return {
        **{root + name: data for name, data in files(count).items()},
        root + index: document(*more, *records(count)).encode(),
        root + "export_cda.xml": b"<ClinicalDocument/>",
    }


def write_zip(path: Path, content: Mapping[str, bytes]) -> Path:
    """An archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in content.items():
            zipped.writestr(name, data)
    return path


def write_folder(path: Path, content: Mapping[str, bytes]) -> Path:
    """A folder."""
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def sent(found: list[Record | Skipped]) -> list[str | None]:
    """The ids of those that would be sent."""
    return [item.record_id for item in found if isinstance(item, Record)]


def only(found: list[Record | Skipped]) -> Record | Skipped:
    """The one that was found."""
    assert len(found) == 1
    return found[0]


def skipped(path: Path, max_record_bytes: int = MAX_RECORD_BYTES) -> Skipped:
    """The first that was found; it is skipped."""
    found = read(path, max_record_bytes)[0]
    assert isinstance(found, Skipped)
    return found
