"""Bodies as they come from outside, read or refused; nothing else ever happens."""

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uplift.errors import UnreadableUpload
from uplift.intake.labels import Labels
from uplift.intake.submission import parse
from uplift.problem_types import ProblemType

R4 = Labels(fhir_version="R4")
_BARE = b'{"resourceType": "Condition", "id": "1"}'


def nested(depth: int, around: bytes = b"") -> bytes:
    return b"[" * depth + around + b"]" * depth


_BAD_VALUES = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"-1e999",
    b"9" * 400,
    b"-" + b"9" * 400,
    b"0x10",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"'a'",
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\xff"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"\x00"',
    b'"\n"',
    b'"\\x"',
    b"undefined",
    b"[1,]",
    b'{"a":1,}',
    b"[",
    nested(100_000),
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
]


@pytest.mark.parametrize("value", _BAD_VALUES, ids=lambda value: repr(value[:16]))
@pytest.mark.parametrize(
    "around",
    [
        b'{"resourceType": "Condition", "id": %s}',
        b'{"resource": {"resourceType": "Condition", "id": %s}}',
        b'{"resource": {"resourceType": "Condition"}, "more": %s}',
        b"%s",
    ],
)
def test_what_is_not_json_is_unreadable_wherever_it_stands(value: bytes, around: bytes) -> None:
    with pytest.raises(UnreadableUpload):
        parse(around.replace(b"%s", value), R4)


@pytest.mark.parametrize(
    "body",
    [
        b"\x00",
        b"\xef\xbb\xbf" + _BARE,
        _BARE.decode().encode("utf-16"),
        _BARE.decode().encode("utf-32"),
        b"\x1f\x8b\x08\x00",
        _BARE + b"\x00",
        _BARE + _BARE,
        _BARE[:-1],
        b"<Condition xmlns='http://hl7.org/fhir'/>",
    ],
)
def test_a_body_that_is_not_one_json_text_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableUpload, match="not JSON"):
        parse(body, R4)


@pytest.mark.parametrize(
    ("body", "mistake"),
    [
        (b'\xef\xbb\xbf{"resourceType": "Basic"}', "byte order mark"),
        (b'{"resourceType": "Basic", "a": NaN}', "at character 32"),
        (b'{"resourceType": "Basic", "a": 1e400}', "infinity when parsed as double"),
        (b'{"resourceType": "Basic",}', "trailing comma is not allowed, at character"),
        (b'{"resourceType": "\xc3\xa9", "a": "\\ud800"}', "surrogate in string, at character 29"),
        (b'{"resourceType": "M\xfcller"}', "byte 20 is not UTF-8"),
        (b'{"resourceType": "Basic"', "unexpected end of data, at character"),
    ],
)
def test_a_body_that_is_not_json_is_told_the_first_mistake_and_where_it_is(
    body: bytes, mistake: str
) -> None:
    with pytest.raises(UnreadableUpload, match=mistake) as error:
        parse(body, Labels(fhir_version="R4"))
    assert "ller" not in str(error.value)  # what is in the body is not repeated


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t"])
def test_a_body_of_nothing_is_unreadable_and_called_empty(body: bytes) -> None:
    with pytest.raises(UnreadableUpload, match="empty"):
        parse(body, R4)


@pytest.mark.parametrize("body", [b"[]", b"null", b"true", b"1", b'"a"', b"[" + _BARE + b"]"])
def test_a_body_that_is_no_object_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableUpload, match="not a JSON object"):
        parse(body, R4)


@pytest.mark.parametrize(
    "resource_type",
    [None, 1, True, [], {}, ["Condition"], "", " ", "Condition ", "Cond1tion", "Condition\x00",
     "Ｃondition", "../Condition", "Condition/1", "Condition\n", "C" * 65],
)  # fmt: skip
@pytest.mark.parametrize("enveloped", [False, True])
def test_a_resource_type_that_no_fhir_type_could_have_is_unreadable(
    resource_type: Any, enveloped: bool
) -> None:
    resource = {"resourceType": resource_type}
    with pytest.raises(UnreadableUpload, match="no resourceType that could be a FHIR type"):
        parse(orjson.dumps({"resource": resource} if enveloped else resource), R4)


@pytest.mark.parametrize("body", [b"{}", b'{"id": "1"}', b'{"resourcetype": "Condition"}'])
def test_an_object_without_a_resource_type_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableUpload, match="no resourceType"):
        parse(body, R4)


@pytest.mark.parametrize("resource", [None, 1, "text", [], [{"resourceType": "Condition"}]])
def test_an_envelope_around_no_object_is_unreadable(resource: Any) -> None:
    with pytest.raises(UnreadableUpload, match="envelope's resource is not a JSON object"):
        parse(orjson.dumps({"resource": resource}), R4)


@pytest.mark.parametrize("name", ["user", "fhirVersion", "source", "recordId"])
@pytest.mark.parametrize("value", [1, 1.5, True, [], {}, ["a"]])
def test_an_envelope_whose_label_is_no_text_is_unreadable_and_says_which(
    name: str, value: Any
) -> None:
    body = orjson.dumps({"resource": {"resourceType": "Condition"}, name: value})
    with pytest.raises(UnreadableUpload, match=rf"\$\.{name}"):
        parse(body, R4)


@pytest.mark.parametrize("name", ["user", "source", "record_id"])
@pytest.mark.parametrize("value", ["a\0b", "\ud800", "x" * 1025])
def test_a_label_that_cannot_be_kept_is_unreadable(name: str, value: str) -> None:
    labels: dict[str, Any] = {name: value}
    with pytest.raises(UnreadableUpload, match=r"U\+0000|more than 1024"):
        parse(_BARE, Labels(fhir_version="R4", **labels))


@pytest.mark.parametrize("name", ["user", "source", "recordId"])
def test_a_label_with_a_nul_in_the_envelope_is_unreadable(name: str) -> None:
    body = orjson.dumps({"resource": {"resourceType": "Condition"}, name: "a\0b"})
    with pytest.raises(UnreadableUpload, match=rf"{name} contains U\+0000"):
        parse(body, R4)


@pytest.mark.parametrize(
    "version",
    ["", " ", "R4 ", "R4\n", "R4\0", "Ｒ4", "R4;x", "4" * 17, "R5", "R4B", "4.3.0", "5.0.0"],
)
def test_a_version_without_a_schema_is_unreadable_and_the_message_names_the_versions(
    version: str,
) -> None:
    with pytest.raises(UnreadableUpload, match=r"fhirVersion is not .* DSTU2, STU3 or R4"):
        parse(_BARE, Labels(fhir_version=version))


def test_a_resource_without_a_version_is_unreadable_and_the_message_names_the_versions() -> None:
    with pytest.raises(UnreadableUpload, match="DSTU2, STU3 or R4"):
        parse(_BARE, Labels())


@pytest.mark.parametrize(
    ("declared", "said", "kept"),
    [
        ("4.0", "R4", "R4"),
        ("4.0.1", "4.0", "R4"),
        ("R4", "4.0.1", "R4"),
        ("1.0", "DSTU2", "DSTU2"),
        ("3.0", "3.0.2", "STU3"),
        ("4.0", None, "R4"),
        ("1.0", None, "DSTU2"),
        (None, "R4", "R4"),
    ],
)
def test_the_content_type_may_name_the_version_too_or_alone(
    declared: str | None, said: str | None, kept: str
) -> None:
    labels = Labels(fhir_version=said, media_type_version=declared)
    assert parse(_BARE, labels).fhir_version == kept
    enveloped = orjson.dumps({"fhirVersion": said, "resource": orjson.loads(_BARE)})
    assert parse(enveloped, Labels(media_type_version=declared)).fhir_version == kept


@pytest.mark.parametrize(
    ("declared", "said", "named"),
    [
        ("1.0", "R4", ("fhirVersion 1.0,", "is R4")),
        ("4.0", "1.0.2", ("fhirVersion 4.0,", "is DSTU2")),
        ("4.3", "R4", ("fhirVersion 4.3,", "is R4")),
        ("5.0", "R4", ("fhirVersion 5.0,", "is R4")),
        ("Ann Smith", "R4", ("a fhirVersion that is none", "is R4")),
        ("", "R4", ("a fhirVersion that is none", "is R4")),
        ("5.0", None, ("DSTU2, STU3 or R4",)),
        ("Ann Smith", None, ("DSTU2, STU3 or R4",)),
    ],
)
def test_a_content_type_of_another_version_is_refused_with_both(
    declared: str, said: str | None, named: tuple[str, ...]
) -> None:
    enveloped = orjson.dumps({"fhirVersion": said, "resource": orjson.loads(_BARE)})
    around = Labels(media_type_version=declared)
    for body, labels in (
        (_BARE, Labels(fhir_version=said, media_type_version=declared)),
        (enveloped, around),
    ):
        with pytest.raises(UnreadableUpload) as refused:
            parse(body, labels)
        assert refused.value.problem is ProblemType.FHIR_VERSION
        assert all(each in str(refused.value) for each in named)
        assert "Ann" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "kept"),
    [("R4", "R4"), ("r4", "R4"), ("4.0.1", "R4"), ("1.0.2", "DSTU2"), ("STU3", "STU3"),
     ("dstu2", "DSTU2"), ("3.0.2", "STU3")],
)  # fmt: skip
def test_a_version_is_kept_under_its_name(said: str, kept: str) -> None:
    assert parse(_BARE, Labels(fhir_version=said)).fhir_version == kept


@pytest.mark.parametrize("depth", [199, 200, 254, 500, 900])
@pytest.mark.parametrize("enveloped", [False, True])
def test_a_resource_nested_deeper_than_can_be_kept_is_unreadable_and_no_other_error(
    depth: int, enveloped: bool
) -> None:
    body = b'{"resourceType": "Condition", "note": ' + nested(depth) + b"}"
    if enveloped:
        body = b'{"resource": ' + body + b"}"
    if depth == 199:
        assert parse(body, R4).resource_type == "Condition"
    else:
        with pytest.raises(UnreadableUpload, match="more than 200 deep"):
            parse(body, R4)


def test_an_envelope_nested_deeper_than_its_reader_goes_is_unreadable_and_no_other_error() -> None:
    with pytest.raises(UnreadableUpload, match="deep"):
        parse(b'{"user": "alice", "resource": {"a": ' + nested(1015) + b"}}", R4)


@pytest.mark.parametrize(
    "resource",
    [
        _BARE,
        b'{"resourceType":"Condition"}',
        b'{\r\n\t"resourceType" : "Condition" ,\n "x": 1.500, "y": 1E+2, "z": "\\u00e9\\/"}',
        '{"resourceType": "Condition", "note": "Größe ☃ 🫁 \\ud83d\\ude00"}'.encode(),
        b'{"resourceType": "Condition", "n": 9999999999999999999999999}',
        b'{"resourceType": "Condition", "n": "\\u0000"}',
    ],
)
@pytest.mark.parametrize(
    "envelope",
    [
        b"%s",
        b'{"resource":%s}',
        b'{"user": "alice", "resource" :\n %s \n, "source": "x"}',
        b'{"\\u0072esource": %s, "recordId": "resource"}',
    ],
)
def test_the_resources_own_bytes_are_kept_exactly(resource: bytes, envelope: bytes) -> None:
    submission = parse(envelope.replace(b"%s", resource), R4)
    assert submission.body == resource
    assert submission.resource == orjson.loads(resource)
    assert submission.resource_type == "Condition"


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name != "resource"),
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
        max_size=4,
    ),
    st.binary(max_size=3).map(lambda junk: bytes(byte for byte in junk if byte in b" \t\r\n")),
)
def test_the_body_of_an_envelope_is_what_stood_there_to_the_byte(
    elements: dict[str, Any], space: bytes
) -> None:
    resource = orjson.dumps({**elements, "resourceType": "Condition"}, option=orjson.OPT_INDENT_2)
    body = b'{"user":"alice","resource":' + space + resource + space + b',"recordId":"1"}'
    assert parse(body, R4).body == resource


@pytest.mark.parametrize("name", ["sourc", "resourceTyp", "FhirVersion", "record_id", "meta"])
def test_an_envelope_with_another_field_is_unreadable_and_the_message_names_it(name: str) -> None:
    body = orjson.dumps({"resource": {"resourceType": "Condition"}, name: "canary"})
    with pytest.raises(UnreadableUpload, match=f"`{name}`.*user, fhirVersion, source") as refused:
        parse(body, R4)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceType": "Bundle", "type": "batch", "entry": []}',
        b'{"resource": {"resourceType": "Bundle"}}',
        b"[" + _BARE + b"]",
        b"[]",
    ],
)
def test_many_resources_in_one_body_are_unreadable_and_the_message_says_where_they_go(
    body: bytes,
) -> None:
    with pytest.raises(UnreadableUpload, match="/v1/batches"):
        parse(body, R4)


def test_an_object_with_a_resource_type_is_a_resource_even_if_it_has_an_element_resource() -> None:
    body = b'{"resourceType": "Parameters", "resource": {"resourceType": "Condition"}}'
    submission = parse(body, R4)
    assert (submission.resource_type, submission.body) == ("Parameters", body)


def test_what_the_envelope_names_goes_before_the_labels() -> None:
    body = orjson.dumps(
        {
            "user": "alice",
            "fhirVersion": "1.0.2",
            "source": "",
            "recordId": None,
            "resource": {"resourceType": "Condition"},
        }
    )
    outer = Labels(user="bob", fhir_version="R4", source="outer", record_id="outer")
    assert parse(body, outer).labels == Labels(
        user="alice", fhir_version="1.0.2", source="", record_id="outer"
    )


def test_an_envelope_says_where_a_record_is_and_when_it_came() -> None:
    body = orjson.dumps(
        {
            "sourceUrl": "https://a.example/Condition/1",
            "receivedAt": "2026-11-23T10:00:00Z",
            "force": True,
            "resource": {"resourceType": "Condition"},
        }
    )
    outer = Labels(fhir_version="R4", source_url="outer", received_at="outer", force=False)
    assert parse(body, outer).labels == Labels(
        fhir_version="R4",
        source_url="https://a.example/Condition/1",
        received_at="2026-11-23T10:00:00Z",
        force=True,
    )


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"receivedAt": "yesterday"}, "receivedAt is not a time"),
        ({"receivedAt": 20261123}, "str"),
        ({"sourceUrl": "a" * 4097}, "sourceUrl has more than 4096"),
        ({"sourceUrl": "\0"}, "sourceUrl contains"),
        ({"force": "true"}, "bool"),
    ],
)
def test_a_label_of_another_kind_is_refused_and_never_quoted(
    labels: dict[str, Any], says: str
) -> None:
    body = orjson.dumps({"resource": {"resourceType": "Condition"}, **labels})
    with pytest.raises(UnreadableUpload, match=says) as refused:
        parse(body, R4)
    assert "yesterday" not in str(refused.value)


@given(st.binary(max_size=60))
@example(b'{"resource":{"resourceType":"A"},"user":"\\ud800"}')
@example(b'{"resource":{"resourceType":"A"},"resource":1}')
@example(b'{"resource":1,"resource":{"resourceType":"A","a":1,"a":2}}')
def test_any_bytes_are_read_or_unreadable(body: bytes) -> None:
    _read_or_refuse(body)


@given(st.integers(0, 97), st.integers(0, 255), st.booleans())
def test_any_envelope_with_a_byte_changed_or_lost_is_read_or_unreadable(
    position: int, byte: int, lost: bool
) -> None:
    body = bytearray(
        b'{"user":"alice","fhirVersion":"R4","source":"s","recordId":"1",'
        b'"resource":{"resourceType":"A"}}'
    )
    position %= len(body)
    body[position : position + 1] = b"" if lost else bytes([byte])
    _read_or_refuse(bytes(body))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.sampled_from(["R4", "A", "\0", ""]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(["resource", "resourceType", "user", "fhirVersion", "id", "\0"]), inner
    ),
    max_leaves=8,
)  # fmt: skip


@given(_VALUES)
def test_any_json_is_read_or_unreadable(value: Any) -> None:
    _read_or_refuse(orjson.dumps(value))


def _read_or_refuse(body: bytes) -> None:
    try:
        submission = parse(body, R4)
    except UnreadableUpload:
        return
    assert orjson.loads(submission.body) == submission.resource
