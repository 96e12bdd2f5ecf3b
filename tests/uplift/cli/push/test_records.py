"""A record on a line is read as the record that it was."""

import msgspec
import pytest

from uplift import client
from uplift.cli.push.records import Record, parse_record


def test_a_line_is_read_as_the_record_that_it_was() -> None:
    record = Record("here", "1.0.2", "Patient", b'{"resourceType":"Patient"}', "s", "r")
    line = client.Record(
        record.body, record.fhir_version, record.source, record.record_id
    ).to_line()
    assert parse_record(line.strip(), "here", fhir_version=None) == record


def test_no_line_break_can_hide_inside_a_string() -> None:
    # The promise that to_line relies on: such a body is no record in the first place.
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(b'{"resourceType":"Patient","a":"x\ny"}')
    assert not isinstance(
        parse_record(b'{"resourceType":"Patient","a":"x\ny"}', "here", fhir_version="R4"), Record
    )
