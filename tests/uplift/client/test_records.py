"""A record on a line: its own bytes, whatever they are, but for line breaks between tokens."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift.client.records import Record

_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def resource_in(line: bytes) -> bytes:
    """The bytes of the resource in an envelope's line."""
    assert line.endswith(b"\n")
    assert not {*b"\r\n"} & {*line[:-1]}
    assert isinstance(json.loads(line), dict)
    start = line.index(b',"resource":') + len(b',"resource":')
    return line[start:-2]


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceType":"Patient"}',
        b' {"resourceType" : "Patient", "a": 1.50, "b": 0.40e+01, "c": 12345678901234567890.00 }\t',
        b'{"resourceType":"Patient","a":"\\n\\r\\u000a \\u00e9 \xc3\xa9 \\/ / \xf0\x9f\x98\x80"}',
        b'{"resourceType":"Patient","a":"},\\"resource\\":{"}',
        b'{"resourceType":"Patient","a":1,"a":2}',
    ],
)
def test_a_resource_without_line_breaks_stands_in_its_line_to_the_byte(body: bytes) -> None:
    line = Record(body, "R4", 'a "quoted" \\ source\n', "id").to_line()
    assert resource_in(line) == body
    told = json.loads(line)
    assert (told["fhirVersion"], told["source"]) == ("R4", 'a "quoted" \\ source\n')


def test_a_line_break_becomes_a_space_and_nothing_else_changes() -> None:
    body = b'{\r\n  "resourceType": "Patient",\n\n  "a": [\r1.0\n]\n}\n'
    line = Record(body, "R4").to_line()
    assert resource_in(line) == body.replace(b"\r", b" ").replace(b"\n", b" ")


@given(
    elements=st.dictionaries(st.text(), _JSON, max_size=3),
    indent=st.none() | st.integers(0, 3),
    ascii_only=st.booleans(),
)
def test_a_line_says_what_the_resource_says(
    elements: dict[str, object], indent: int | None, ascii_only: bool
) -> None:
    resource = {**elements, "resourceType": "Patient"}
    body = json.dumps(resource, indent=indent, ensure_ascii=ascii_only).encode()
    line = Record(body, "R4").to_line()
    assert json.loads(line)["resource"] == json.loads(body)
    assert len(resource_in(line)) == len(body)
