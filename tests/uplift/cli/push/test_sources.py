"""Folders, NDJSON and single files."""

import json
from pathlib import Path

import pytest

from uplift.cli.push.notes import Note, Notes
from uplift.cli.push.records import Record, Skipped, UnreadableSource, parse_record
from uplift.cli.push.sources import count_records, read_records

BARE = b'{"resourceType":"Observation","id":"o1","valueQuantity":{"value":0.40}}'
ENVELOPE = (
    b'{"fhirVersion":"DSTU2","source":"org.example.a","recordId":"A-1","resource": '
    b'{ "resourceType":"Condition", "n": 1.50e2 } }'
)


async def read(
    path: Path, fhir_version: str | None = None, max_record_bytes: int = 1024
) -> list[Record | Skipped]:
    return [
        item
        async for item in read_records(
            path, fhir_version=fhir_version, max_record_bytes=max_record_bytes
        )
    ]


def test_an_envelope_gives_its_facts_and_the_resource_s_own_bytes() -> None:
    assert parse_record(ENVELOPE, "here", fhir_version="R4") == Record(
        "here",
        "DSTU2",
        "Condition",
        b'{ "resourceType":"Condition", "n": 1.50e2 }',
        "org.example.a",
        "A-1",
    )


def test_a_bare_resource_takes_the_given_version() -> None:
    assert parse_record(BARE, "here", fhir_version="R4") == Record(
        "here", "R4", "Observation", BARE
    )


def test_a_bare_resource_may_have_elements_named_like_the_envelope_s() -> None:
    body = b'{"resourceType":"MolecularSequence","source":{"reference":"X/1"},"resource":[]}'
    assert parse_record(body, "here", fhir_version="R4") == Record(
        "here", "R4", "MolecularSequence", body
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BARE, "--fhir-version"),
        (b'{"resource": {"resourceType": "Condition"}}', "--fhir-version"),
        (b'{"fhirVersion": "R4", "resource": {"id": "1"}}', "not a JSON object"),
        (b'{"fhirVersion": "R4", "resource": "Condition"}', "not a JSON object"),
        (b'{"fhirVersion": "R4", "source": 7, "resource": {}}', "$.source"),
        (b'{"fhirVersion": "R4"}', "not a JSON object"),
        (b"[]", "neither a resource nor an envelope"),
        (b"{", "not a JSON object"),
        (b"[" * 100_000, "neither a resource nor an envelope"),
        (b'{"resource":' + b"[" * 100_000, "not a JSON object"),
        (b"\xff", "not a JSON object"),
    ],
)
def test_what_is_no_record_is_skipped_with_a_reason(data: bytes, reason: str) -> None:
    found = parse_record(data, "here", fhir_version=None)
    assert isinstance(found, Skipped)
    assert reason in found.reason


async def test_ndjson_is_read_line_by_line_with_the_line_in_the_label(tmp_path: Path) -> None:
    path = tmp_path / "records.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" + BARE + b"\r\n\n" + ENVELOPE + b"\nnope\n" + BARE)
    first, second, third, fourth = await read(path, "R4")
    assert first == Record("records.ndjson:1", "R4", "Observation", BARE)
    assert second.label == "records.ndjson:3"
    assert isinstance(third, Skipped)
    assert third.label == "records.ndjson:4"
    assert fourth == Record("records.ndjson:5", "R4", "Observation", BARE)


async def test_a_line_that_is_too_long_is_skipped_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "records.ndjson"
    path.write_bytes(b'{"resourceType":"' + b"x" * 10_000 + b'"}\n' + BARE + b"\n")
    first, second = await read(path, "R4")
    assert first == Skipped("records.ndjson:1", "larger than 1 KiB")
    assert second == Record("records.ndjson:2", "R4", "Observation", BARE)


async def test_a_line_of_just_the_most_bytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "records.ndjson"
    path.write_bytes(BARE + b"\n" + BARE)
    assert [type(item) for item in await read(path, "R4", len(BARE))] == [Record, Record]


async def test_a_folder_gives_its_json_and_ndjson_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.json").write_bytes(ENVELOPE)
    (tmp_path / "sub" / "c.JSON").write_bytes(json.dumps(json.loads(BARE), indent=1).encode())
    (tmp_path / "a.ndjson").write_bytes(BARE + b"\n" + BARE + b"\n")
    (tmp_path / "notes.txt").write_bytes(b"not a record")
    (tmp_path / "d.json").mkdir()
    found = await read(tmp_path, "R4")
    assert [item.label for item in found] == [
        "a.ndjson:1",
        "a.ndjson:2",
        "b.json",
        "sub/c.JSON",
    ]
    assert [type(item) for item in found] == [Record] * 4


async def test_a_link_out_of_the_folder_and_a_large_file_are_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.json").write_bytes(BARE)
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "large.json").write_bytes(b"{" + b" " * 2000 + BARE[1:])
    notes = Notes()
    found = [
        each
        async for each in read_records(
            folder, fhir_version="R4", max_record_bytes=1024, notes=notes
        )
    ]
    assert found == [Skipped("large.json", "larger than 1 KiB")]
    assert notes.passed_over == [Note("link.json", "a link that leads out of the folder")]


async def test_a_folder_without_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource, match="there are no records"):
        await read(tmp_path)


@pytest.mark.parametrize(
    ("data", "count"), [(b"", 0), (b"{", 1), (b"{\n", 1), (b"{\n{", 2), (b"{\n\n", 2)]
)
def test_records_are_counted_by_lines(tmp_path: Path, data: bytes, count: int) -> None:
    path = tmp_path / "records.ndjson"
    path.write_bytes(data)
    assert count_records(path) == count
    assert count_records(tmp_path) == count


def test_a_json_file_counts_as_one_record(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"{\n}\n")
    assert count_records(tmp_path / "a.json") == 1
