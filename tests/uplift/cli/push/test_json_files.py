"""FHIR that does not come from a phone: Bundles, arrays, lines, packed or not."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.uplift.cli.push.exports import read
from uplift.cli.push.notes import Notes
from uplift.cli.push.records import Record, Skipped, UnreadableSource

FOUR: list[dict[str, Any]] = [
    {"resourceType": "Observation", "id": f"b{number}", "value": 0.5} for number in range(4)
]
LINES = "".join(json.dumps(each) + "\n" for each in FOUR)


def bundle(kind: str = "collection", **changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "type": kind,
        "entry": [{"fullUrl": f"urn:uuid:{each['id']}", "resource": each} for each in FOUR],
        **changes,
    }


def ids(found: list[Record | Skipped]) -> list[str]:
    return [json.loads(each.body)["id"] for each in found if isinstance(each, Record)]


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bundle.json", json.dumps(bundle())),
        ("bundle.json", pretty(bundle("transaction"))),
        ("bundle", pretty(bundle("searchset"))),
        ("bundle.ndjson", pretty(bundle("batch"))),
        ("array.json", json.dumps(FOUR)),
        ("array.json", pretty(FOUR)),
        ("array.json", "[\n" + ",\n".join(json.dumps(each) for each in FOUR) + "\n]"),
        ("Observation.ndjson", LINES),
        ("Observation.jsonl", LINES),
        ("Observation.json", LINES),
        ("Observation.txt", LINES),
        ("Observation", "\ufeff" + LINES),
        ("Observation.ndjson", LINES.replace("\n", "\r\n\r\n")),
        ("Observation.ndjson.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("Observation.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("without-a-name", gzip.compress(LINES.encode(), mtime=0)),
        ("bundle.json.gz", gzip.compress(pretty(bundle()).encode(), mtime=0)),
        (
            "two.gz",
            gzip.compress(LINES[:80].encode(), mtime=0)
            + gzip.compress(LINES[80:].encode(), mtime=0),
        ),
        ("bundles.ndjson", json.dumps(bundle())),
    ],
)
def test_every_entry_element_or_line_becomes_a_record(
    tmp_path: Path, name: str, data: str | bytes
) -> None:
    notes = Notes()
    found = read(write(tmp_path / name, data), fhir_version="R4", notes=notes)
    assert ids(found) == ["b0", "b1", "b2", "b3"]
    assert len(found) == 4
    assert len({each.label for each in found}) == 4
    assert notes == Notes()


def test_an_entry_has_the_bytes_that_stand_in_the_bundle(tmp_path: Path) -> None:
    own = '{ "resourceType":"Condition",\n "n": 1.50e2 }'
    text = f'{{"resourceType":"Bundle","type":"collection","entry":[{{"resource": {own} }}]}}'
    (found,) = read(write(tmp_path / "a.json", text), fhir_version="R4")
    assert isinstance(found, Record)
    assert found.body == own.encode()
    assert found.label == "a.json, entry 1"


@pytest.mark.parametrize("kind", ["document", "message", "history", None, 7])
def test_a_bundle_whose_entries_belong_together_is_skipped_as_by_the_api(
    tmp_path: Path, kind: Any
) -> None:
    found = read(write(tmp_path / "a.json", json.dumps(bundle(kind))), fhir_version="R4")
    assert [type(each) for each in found] == [Skipped]


@pytest.mark.parametrize("entry", [{}, [1], "x", [[]]])
def test_a_bundle_with_other_entries_is_skipped(tmp_path: Path, entry: Any) -> None:
    found = read(write(tmp_path / "a.json", json.dumps(bundle(entry=entry))), fhir_version="R4")
    assert [type(each) for each in found] == [Skipped]


def test_a_bundle_without_entries_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource, match="without entries"):
        read(write(tmp_path / "a.json", json.dumps(bundle(entry=[]))), fhir_version="R4")


def test_an_entry_without_a_resource_is_passed_over(tmp_path: Path) -> None:
    entries = [{"request": {"method": "DELETE"}}, {"resource": FOUR[0]}]
    notes = Notes()
    path = write(tmp_path / "a.json", json.dumps(bundle(entry=entries)))
    assert ids(read(path, fhir_version="R4", notes=notes)) == ["b0"]
    assert [each.label for each in notes.passed_over] == ["a.json, entry 1"]


def test_a_bad_first_line_does_not_hide_the_others(tmp_path: Path) -> None:
    for name in ("a.ndjson", "a.json"):
        path = write(tmp_path / name, '{"resourceType": "Obs\n' + LINES)
        found = read(path, fhir_version="R4")
        assert [type(each) for each in found] == [Skipped] + [Record] * 4


def test_synthea_writes_a_bundle_for_each_person(tmp_path: Path) -> None:
    folder = tmp_path / "fhir"
    folder.mkdir()
    write(folder / "Aaron697_Wyman904_b1.json", pretty(bundle("transaction")))
    write(folder / "hospitalInformation1.json", pretty(bundle("batch", entry=[])))
    assert ids(read(tmp_path, fhir_version="R4")) == ["b0", "b1", "b2", "b3"]


def test_a_bulk_export_of_a_smart_server_is_read(tmp_path: Path) -> None:
    manifest = {
        "transactionTime": "2025-01-01T00:00:00Z",
        "request": "https://fhir.example.org/$export",
        "requiresAccessToken": True,
        "output": [{"type": "Observation", "url": "https://fhir.example.org/1"}],
        "error": [],
    }
    write(tmp_path / "manifest.json", pretty(manifest))
    write(tmp_path / "log.ndjson", '{"exportId":"1","eventId":"kickoff"}\n' * 3)
    write(tmp_path / "1.Observation.ndjson", LINES)
    (tmp_path / "attachments").mkdir()
    write(tmp_path / "attachments" / "note.pdf", "%PDF-1.4")
    notes = Notes()
    assert ids(read(tmp_path, fhir_version="R4", notes=notes)) == ["b0", "b1", "b2", "b3"]
    assert {each.label for each in notes.passed_over} == {
        "manifest.json",
        "log.ndjson",
        "attachments/note.pdf",
    }


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_packed_file_that_is_cut_off_gives_what_came_before(tmp_path: Path, part: float) -> None:
    numbers = "".join(
        json.dumps({"resourceType": "Observation", "id": f"b{number}-{number**7}"}) + "\n"
        for number in range(20_000)
    )
    data = gzip.compress(numbers.encode(), mtime=0)
    notes = Notes()
    path = write(tmp_path / "a.ndjson.gz", data[: int(len(data) * part)])
    assert len(ids(read(path, fhir_version="R4", notes=notes))) > 1000
    assert "cut off" in notes.unread[0].reason


def test_a_record_larger_than_the_limit_is_skipped_in_every_form(tmp_path: Path) -> None:
    big = {"resourceType": "Binary", "id": "big", "data": "x" * 3000}
    forms = {
        "a.json": json.dumps(big),
        "b.json": pretty([big, FOUR[0]]),
        "c.json": pretty(bundle(entry=[{"resource": big}, {"resource": FOUR[0]}])),
        "d.ndjson": json.dumps(big) + "\n" + LINES,
    }
    for name, text in forms.items():
        found = read(write(tmp_path / name, text), 2048, fhir_version="R4")
        assert [each.reason for each in found if isinstance(each, Skipped)] == [
            "larger than 2 KiB"
        ], name


def test_a_file_that_should_have_a_record_and_has_none_counts(tmp_path: Path) -> None:
    write(tmp_path / "a.json", LINES)
    write(tmp_path / "b.json", "not JSON")
    write(tmp_path / "c.ndjson", b"\x00\x01\x02")
    write(tmp_path / "d.json", "")
    found = read(tmp_path, fhir_version="R4")
    assert [each.label for each in found if isinstance(each, Skipped)] == [
        "b.json",
        "c.ndjson",
        "d.json",
    ]


def test_the_records_of_an_export_without_its_index_are_told_and_not_sent(tmp_path: Path) -> None:
    folder = tmp_path / "apple_health_export" / "clinical-records"
    folder.mkdir(parents=True)
    write(folder / "Observation-1.json", json.dumps(FOUR[0]))
    (found,) = read(tmp_path, fhir_version="R4")
    assert isinstance(found, Skipped)
    assert "not sent" in found.reason
