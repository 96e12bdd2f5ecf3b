"""The synthetic export: deterministic, valid where it says so, and odd where real exports are."""

import base64
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from uplift.cli.push.records import Record, Skipped
from uplift.cli.push.sources import Source, count_records
from uplift.fhir.validate import validate
from uplift.sandbox.export.make_export import Manifest, ManifestRecord, write_export

TYPES = {
    "AllergyIntolerance",
    "Condition",
    "Coverage",
    "DiagnosticReport",
    "DocumentReference",
    "Immunization",
    "MedicationDispense",
    "MedicationOrder",
    "MedicationRequest",
    "MedicationStatement",
    "Observation",
    "Procedure",
}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    path = tmp_path_factory.mktemp("export") / "apple-health-export.zip"
    return path, write_export(path)


@pytest.fixture(scope="module")
def records(export: tuple[Path, Manifest]) -> list[tuple[ManifestRecord, Record]]:
    """What the manifest says beside what the reader finds."""
    path, manifest = export
    found = [item for item in Source(path).records() if isinstance(item, Record)]
    return list(zip(manifest.records, found, strict=True))


def test_the_same_seed_gives_the_same_bytes_in_any_process_and_zone(
    tmp_path: Path, export: tuple[Path, Manifest]
) -> None:
    for number, zone in enumerate(("UTC", "Asia/Tokyo")):
        subprocess.run(
            [
                Path(sys.executable).with_name("uplift"),
                "example-export",
                str(tmp_path / f"{number}.zip"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parents[4],
            env={**os.environ, "TZ": zone, "PYTHONHASHSEED": str(number)},
        )
        assert (tmp_path / f"{number}.zip").read_bytes() == export[0].read_bytes()


def test_another_seed_gives_another_person_s_figures(
    tmp_path: Path, export: tuple[Path, Manifest]
) -> None:
    other = write_export(tmp_path / "other.zip", seed=7)
    assert len(other.records) == len(export[1].records)
    assert {record.record_id for record in other.records}.isdisjoint(
        record.record_id for record in export[1].valid if record.source.startswith("Cl")
    )


def test_the_reader_finds_what_the_manifest_says(
    export: tuple[Path, Manifest], records: list[tuple[ManifestRecord, Record]]
) -> None:
    for told, found in records:
        assert found.label == told.path
        assert found.resource_type == told.resource_type
        assert found.fhir_version == told.fhir_version
        assert found.hospital == told.source
        assert found.record_id == told.record_id
    path, manifest = export
    skipped = [item for item in Source(path).records() if isinstance(item, Skipped)]
    assert [item.label for item in skipped] == [record.path for record in manifest.missing]
    assert len(skipped) == 1
    assert count_records(path) == len(manifest.records)


def test_there_are_enough_records_of_every_type_and_both_versions(
    records: list[tuple[ManifestRecord, Record]],
) -> None:
    assert len(records) >= 200
    assert {told.resource_type for told, _ in records} == TYPES
    versions = Counter(told.fhir_version for told, _ in records)
    assert min(versions["1.0.2"], versions["4.0.1"]) >= 100
    changes = sum(
        one[0].fhir_version != other[0].fhir_version for one, other in itertools.pairwise(records)
    )
    assert changes > 50
    identities = {(told.source, told.resource_type, told.record_id) for told, _ in records}
    assert len(identities) == len(records)


def test_every_record_is_valid_or_rejected_at_the_element_the_manifest_names(
    records: list[tuple[ManifestRecord, Record]],
) -> None:
    for told, found in records:
        report = validate(found.body, found.fhir_version)
        assert report.valid == (told.fault is None), (told, report.issues)
        if told.fault is not None:
            (error,) = [issue for issue in report.issues if issue.refuses]
            assert error.expression == told.fault
        assert not report.library_disagreement, told


def test_fhir_resources_agrees_on_every_r4_record(
    records: list[tuple[ManifestRecord, Record]],
) -> None:
    for told, found in records:
        if told.fhir_version != "4.0.1":
            continue
        module = importlib.import_module(f"fhir.resources.R4B.{told.resource_type.lower()}")
        model: Any = getattr(module, told.resource_type)
        if told.fault is None:
            model.model_validate_json(found.body)
            continue
        with pytest.raises(ValidationError) as failure:
            model.model_validate_json(found.body)
        (error,) = failure.value.errors(include_input=False, include_url=False)
        steps = "".join(
            f"[{step}]" if isinstance(step, int) else f".{step}" for step in error["loc"]
        )
        assert told.resource_type + steps == told.fault


def test_between_five_and_eight_records_are_broken_mostly_in_r4(
    export: tuple[Path, Manifest],
) -> None:
    broken = export[1].broken
    assert 5 <= len(broken) <= 8
    assert sum(record.fhir_version == "4.0.1" for record in broken) > len(broken) / 2
    assert all(record.defect for record in broken)


def test_the_quirks_of_real_hospitals_occur(
    export: tuple[Path, Manifest], records: list[tuple[ManifestRecord, Record]]
) -> None:
    dstu2 = [found for told, found in records if told.fhir_version == "1.0.2"]
    resources = [json.loads(found.body) for found in dstu2]
    assert any(len(found.record_id or "") > 64 for found in dstu2)
    assert any("_" in (found.record_id or "") for found in dstu2)
    assert any(re.fullmatch(r"[^Z+]*T[\d:]+", each.get("issued", "")) for each in resources)
    assert any(each["resourceType"] == "Condition" and "patient" not in each for each in resources)
    bodies = b"\n".join(found.body for _, found in records)
    assert b'"value":0.40' in bodies
    assert b'"value": 7.80e1' in bodies
    assert "결과 재확인 — نتيجة 🙂".encode() in bodies
    assert b"L\\u00f6we" in bodies
    assert not any(told.resource_type == "Patient" for told, _ in records)
    assert b'"Patient/' in bodies
    with zipfile.ZipFile(export[0]) as archive:
        index = archive.read("apple_health_export/export.xml").decode()
    clinical = re.findall(r"<ClinicalRecord [^>]*>", index)
    assert sum("sourceURL=" not in element for element in clinical) == 1
    assert index.count("<Record ") > 100
    assert "<!DOCTYPE HealthData [" in index


def test_some_notes_are_of_some_hundred_kilobytes_and_all_are_text(
    records: list[tuple[ManifestRecord, Record]],
) -> None:
    notes = [
        json.loads(found.body)["content"][0]["attachment"]["data"]
        for told, found in records
        if told.resource_type == "DocumentReference"
    ]
    assert sum(len(note) > 100_000 for note in notes) >= 3
    for note in notes:
        assert "Patient: Mara" in base64.b64decode(note, validate=True).decode()


def test_a_larger_export_is_filled_with_valid_home_readings(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    manifest = write_export(path, records=5000)
    assert len(manifest.records) + len(manifest.missing) == 5000
    identities = {(each.source, each.resource_type, each.record_id) for each in manifest.records}
    assert len(identities) == len(manifest.records)
    found = [item for item in Source(path).records() if isinstance(item, Record)]
    assert len(found) == len(manifest.records)
    for item in found[-3000::100]:
        assert validate(item.body, item.fhir_version).valid


def test_too_small_an_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few"):
        write_export(tmp_path / "small.zip", records=10)


def test_values_follow_a_course_and_are_flagged(
    records: list[tuple[ManifestRecord, Record]],
) -> None:
    readings = sorted(
        (resource["effectiveDateTime"], resource["valueQuantity"]["value"])
        for told, found in records
        if told.fault is None
        for resource in [json.loads(found.body)]
        if told.resource_type == "Observation"
        and resource["code"]["coding"][0]["code"] == "4548-4"
        and "valueQuantity" in resource
    )
    values = [value for _, value in readings]
    assert len(values) > 15
    assert max(values) == max(values[2:5]) > 8.0
    assert values[-1] < 7.0
