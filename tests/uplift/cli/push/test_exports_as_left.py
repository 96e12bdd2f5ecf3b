"""Exports as phones write them and as people leave them behind."""

import os
import zipfile
from pathlib import Path

import pytest

from tests.uplift.cli.push.exports import (
    document,
    element,
    files,
    members,
    observation,
    read,
    records,
    sent,
    write_folder,
    write_zip,
)
from uplift.cli.push.notes import Notes
from uplift.cli.push.records import Record, Skipped, UnreadableSource

FIVE = [f"o{number}" for number in range(5)]
READING = '<Record type="HKQuantityTypeIdentifierHeartRate" value="61"/>'


@pytest.mark.parametrize("index", ["导出.xml", "exportar.xml", "Exportieren.xml", "exporter.XML"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_index_has_the_name_of_the_phones_language(
    tmp_path: Path, index: str, packed: bool
) -> None:
    write = write_zip if packed else write_folder
    assert sent(read(write(tmp_path / "export.zip", members(index)))) == FIVE


@pytest.mark.parametrize("root", ["", "apple_health_export/", "Downloads/apple_health_export/"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_export_is_at_the_top_or_deeper(tmp_path: Path, root: str, packed: bool) -> None:
    write = write_zip if packed else write_folder
    assert sent(read(write(tmp_path / "export", members(root=root)))) == FIVE


@pytest.mark.parametrize("index", ["export.xml", "Exportieren.xml"])
def test_the_index_itself_may_be_named(tmp_path: Path, index: str) -> None:
    folder = write_folder(tmp_path, {**members(index), "apple_health_export/x.json": b"{}"})
    notes = Notes()
    assert sent(read(folder / "apple_health_export" / index, notes=notes)) == FIVE
    assert notes == Notes()


def test_two_exports_in_one_folder_are_both_read_and_told_apart(tmp_path: Path) -> None:
    old = {f"old/{name}": data for name, data in members().items()}
    found = read(write_folder(tmp_path, {**members(), **old}))
    assert sent(found) == FIVE + FIVE
    assert len({item.label for item in found}) == 10


def test_two_indexes_of_the_same_files_send_each_once(tmp_path: Path) -> None:
    content = members()
    content["apple_health_export/export 2.xml"] = content["apple_health_export/export.xml"]
    assert sent(read(write_folder(tmp_path, content))) == FIVE


def test_records_that_no_index_names_are_told_and_never_sent(tmp_path: Path) -> None:
    content = members(count=3)
    for number in range(100, 103):
        content[f"apple_health_export/clinical-records/O-{number}.json"] = observation(number)
    for version in (None, "R4"):
        found = read(write_folder(tmp_path, content), fhir_version=version)
        assert sent(found) == FIVE[:3]
        left = [item for item in found if isinstance(item, Skipped)]
        assert [item.label for item in left] == [
            f"clinical-records/O-{number}.json" for number in range(100, 103)
        ]
        assert all("R4" not in item.reason and "not sent" in item.reason for item in left)


@pytest.mark.parametrize(
    "bad",
    [
        b'<Record type="x" Health App Version="2.6" value="0.2"/>',
        b'<Record sourceName="Health & Fitness" value="61"/>',
        b'<Record sourceName="Andr\xe9" value="61"/>',
        b'<Record sourceName="a" sourceName="b" value=61/>',
        b'<Record sourceName="no end of the quote value="61"/>',
        b'<Record sourceName="no end',
        b"<Record",
        b"<",
        b"text & more",
        b'<Record a="1"/></Workout>',
        b"<!-- never ends",
        b"<![CDATA[ never ends",
        b"<?never ends",
        b'<Record device="\xff\xfe\x00\x01"/>',
    ],
)
def test_an_element_that_is_not_well_formed_costs_no_record(tmp_path: Path, bad: bytes) -> None:
    content = members()
    index = "apple_health_export/export.xml"
    for place in (b" <Record type", b" <ClinicalRecord", b"</HealthData>"):
        content[index] = content[index].replace(place, bad + b"\n" + place, 1)
    notes = Notes()
    assert sent(read(write_zip(tmp_path / "export.zip", content), notes=notes)) == FIVE
    assert notes.unread == []


@pytest.mark.parametrize(
    "bad",
    [
        '<Record type="x" Health App Version="2.6" value="0.2"/>',
        '<Record sourceName="Health & Fitness" value="61"/>',
        '<Record sourceName="Andr\udce9" value="61"/>',
    ],
)
def test_a_bad_element_is_told_with_its_line(tmp_path: Path, bad: str) -> None:
    xml = document(READING, bad, READING, *records()).encode(errors="surrogateescape")
    content = {"export.xml": xml, **files()}
    notes = Notes()
    assert sent(read(write_folder(tmp_path, content), notes=notes)) == FIVE
    (note,) = notes.passed_over
    line = xml.split(b"\n").index(bad.encode(errors="surrogateescape")) + 1
    assert note.label == f"export.xml, line {line}"


def test_a_million_bad_elements_take_no_memory(tmp_path: Path) -> None:
    xml = document("<Record &/>\n" * 100_000, *records())
    notes = Notes()
    assert sent(read(write_folder(tmp_path, {"export.xml": xml.encode(), **files()}), notes=notes))
    assert notes.passed_over_total == 100_000
    assert len(notes.passed_over) < 2000


@pytest.mark.parametrize(
    ("name", "hospital"),
    [
        ("North & East Clinic", "North & East Clinic"),
        ("St. \udcc9lodie", "St. \ufffdlodie"),
        ('The "Best" Clinic', 'The "Best" Clinic'),
        ("A &lt; B & C &#233; &copy;", "A < B & C é &copy;"),
    ],
)
def test_what_is_wrong_in_every_clinical_record_is_told_and_all_are_sent(
    tmp_path: Path, name: str, hospital: str
) -> None:
    xml = document(*records(sourceName=name)).encode(errors="surrogateescape")
    notes = Notes()
    found = read(write_folder(tmp_path, {"export.xml": xml, **files()}), notes=notes)
    assert sent(found) == FIVE
    assert {item.hospital for item in found} == {hospital}
    assert notes.passed_over_total == 5


def test_a_clinical_record_that_lost_a_quote_is_skipped_by_name_not_sent_wrongly(
    tmp_path: Path,
) -> None:
    xml = document(*records()).replace('fhirVersion="4.0.1"', 'fhirVersion="4.0.1', 1)
    found = read(write_folder(tmp_path, {"export.xml": xml.encode(), **files()}))
    assert sent(found) == FIVE[1:]
    assert isinstance(found[0], Skipped)
    assert "fhirVersion" in found[0].reason


@pytest.mark.parametrize("url", ["https://FHIR.example.org/api/R4/Observation/1", "not a url", ""])
def test_a_record_has_its_hospitals_name_and_the_url_that_survives_a_new_name(
    tmp_path: Path, url: str
) -> None:
    xml = document(*records(1, sourceURL=url)).encode()
    (found,) = read(write_folder(tmp_path, {"export.xml": xml, **files(1)}))
    assert isinstance(found, Record)
    assert (found.source, found.source_url) == ("Hospital & Clinic", url)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "an empty file"),
        (b"PK\x05\x06" + bytes(18), "an empty archive"),
        (b"PK\x03\x04" + b"x" * 200, "a damaged archive"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(50), "7-Zip"),
        (b"Rar!\x1a\x07\x01\x00", "RAR"),
        (b"%PDF-1.7\n{", "PDF"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"\x00\x00\x00\x18ftypheic", "picture"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"x" * 257 + b"ustar\x00", "tar"),
        (b"\x00\x05\x16\x07\x00\x02", "AppleDouble"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"<?xml version='1.0'?><ClinicalDocument/>", "CDA"),
        (b'<Patient xmlns="http://hl7.org/fhir"/>', "FHIR as XML"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"a,b,c\n1,2,3\n", "text, not FHIR"),
        (b"\x1f\x8b\x08\x00broken", "damaged or cut off"),
        (bytes(1000), "not FHIR"),
    ],
)
def test_what_is_not_recognised_is_refused_for_what_it_is(
    tmp_path: Path, data: bytes, told: str
) -> None:
    path = tmp_path / "export.zip"
    path.write_bytes(data)
    with pytest.raises(UnreadableSource, match=told):
        read(path, fhir_version="R4")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_an_archive_that_is_cut_off_is_told_so(tmp_path: Path, part: float) -> None:
    path = write_zip(tmp_path / "export.zip", members())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(whole.index(b"PK\x01\x02") * part)])
    with pytest.raises(UnreadableSource, match="cut off"):
        read(path)


def test_an_archive_without_its_last_bytes_has_all_its_files(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "export.zip", members())
    path.write_bytes(path.read_bytes()[:-30])
    assert sent(read(path)) == FIVE


def test_what_macos_leaves_beside_files_is_passed_over(tmp_path: Path) -> None:
    double = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "
    litter = {
        "__MACOSX/apple_health_export/._export.xml": double,
        "apple_health_export/._export.xml": double,
        "apple_health_export/clinical-records/._Observation-0.json": double,
        "apple_health_export/.DS_Store": b"\x00\x00\x00\x01Bud1",
    }
    for write in (write_zip, write_folder):
        notes = Notes()
        found = read(write(tmp_path / write.__name__, {**members(), **litter}), notes=notes)
        assert sent(found) == FIVE
        assert len(found) == 5
        assert notes == Notes()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_in_an_archive_is_read(tmp_path: Path, method: int) -> None:
    inner = write_zip(tmp_path / "inner.zip", members()).read_bytes()
    path = tmp_path / "outer.zip"
    with zipfile.ZipFile(path, "w", method) as zipped:
        zipped.writestr("Downloads/export.zip", inner)
        zipped.writestr("Downloads/readme.txt", "Hello")
    notes = Notes()
    found = read(path, notes=notes)
    assert sent(found) == FIVE
    assert found[0].label.startswith("Downloads/export.zip/")
    assert [each.label for each in notes.passed_over] == ["Downloads/readme.txt"]


def test_archives_in_archives_without_end_are_not_followed(tmp_path: Path) -> None:
    data = write_zip(tmp_path / "0.zip", members()).read_bytes()
    for _ in range(10):
        data = write_zip(tmp_path / "next.zip", {"export.zip": data}).read_bytes()
    with pytest.raises(UnreadableSource, match="too many archives"):
        read(tmp_path / "next.zip")


def test_a_folder_of_archives_is_read_and_a_bad_one_does_not_stop_it(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", members())
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04cut")
    (tmp_path / "c.json").write_bytes(observation(9))
    notes = Notes()
    found = read(tmp_path, fhir_version="R4", notes=notes)
    assert len(sent(found)) == 6
    assert [each.label for each in notes.unread] == ["b.zip"]


def test_a_pipe_or_a_device_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path, members())
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    notes = Notes()
    assert sent(read(tmp_path, notes=notes)) == FIVE
    assert {each.label for each in notes.passed_over} == {"pipe.json", "zero.json"}


def test_a_pipe_that_is_named_itself_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "export.zip")
    with pytest.raises(UnreadableSource, match="not a file"):
        read(tmp_path / "export.zip")


def test_a_folder_that_contains_itself_ends(tmp_path: Path) -> None:
    write_folder(tmp_path, members())
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert sent(read(tmp_path)) == FIVE


def test_an_export_without_clinical_records_is_told(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "export.zip", {"export.xml": document(READING).encode()})
    with pytest.raises(UnreadableSource, match="there are no records"):
        read(path)


def test_what_lies_beside_an_export_is_told_and_not_sent(tmp_path: Path) -> None:
    content = {**members(root=""), "bundle.json": observation(77), "photo.jpg": b"\xff\xd8\xff"}
    notes = Notes()
    assert sent(read(write_folder(tmp_path, content), fhir_version="R4", notes=notes)) == FIVE
    assert {each.label for each in notes.passed_over} == {"bundle.json", "photo.jpg"}


def test_parts_of_the_index_that_do_not_end_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    endless = element(sourceName="x" * 3_000_000)
    xml = document(endless, *records()).encode()
    notes = Notes()
    found = read(write_folder(tmp_path, {"export.xml": xml, **files()}), notes=notes)
    assert sent(found) == FIVE
    assert "more than a megabyte" in notes.unread[0].reason
