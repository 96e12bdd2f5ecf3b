"""Which uploads are one record, and which content is the same."""

import json
import os
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift.identity import (
    canonical,
    content_digest,
    record_identity,
    server_of,
    upstream_key,
    without_version_metadata,
)

KEY = bytes(range(32))

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_INTEGERS = st.integers(-(2**63), 2**64 - 1)
_EXACT = st.none() | st.booleans() | _INTEGERS | _TEXT
_ANY = _EXACT | st.floats(allow_nan=False, allow_infinity=False)


def _json(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    )


def _identity(**parts: Any) -> bytes:
    return record_identity(
        parts.pop("key", KEY),
        **{
            "fhir_version": "R4",
            "resource_type": "Condition",
            "source": "hospital",
            "record_id": "1",
            "digest": b"d" * 32,
            **parts,
        },
    )


# Where orjson changes how it writes a float, and where a whole one is no integer of its any more.
_EDGES = [-0.0, 72.0, 1e-7, 1e15, 1e16, -1e16, 9.5e18, -(2.0**63), 2.0**63, 2.0**64, 1e22]
_LIKE_NUMBERS = st.sampled_from(["a.0", ".0,", "x.0]", "1e+16", "urn:oid:1.0"])


def _whole_as_integers(value: Any) -> Any:
    match value:
        case float() if value.is_integer() and -(2.0**63) <= value < 2.0**64:
            return int(value)
        case dict():
            return {name: _whole_as_integers(child) for name, child in value.items()}
        case list():
            return [_whole_as_integers(child) for child in value]
    return value


@given(_json(_ANY | st.sampled_from(_EDGES) | st.integers(10**15).map(float) | _LIKE_NUMBERS))
def test_whole_floats_are_integers_wherever_they_are(value: Any) -> None:
    assert canonical(value) == orjson.dumps(_whole_as_integers(value), option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("72", "72.0"),
        ("72", "72.000"),
        ("72", "7.2e1"),
        ("72", "720E-1"),
        ("72.5", "72.50"),
        ("0.001", "1e-3"),
        ("0", "-0"),
        ("0", "-0.0"),
        ("0", "0e5"),
        ("10000000000000000000", "1e19"),
        ("18446744073709551616", "1.8446744073709551616e19"),
        ('"\\u00e9"', '"é"'),
        ('{"a": 1, "b": 2}', '{ "b":2,\n"a" : 1 }'),
        ('[{"x": [1.0]}]', '[{"x": [1]}]'),
    ],
)
def test_spelling_is_no_content(one: str, other: str) -> None:
    assert canonical(orjson.loads(one)) == canonical(orjson.loads(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.5"),
        ("1", "true"),
        ("0", "false"),
        ("0", "null"),
        ("1", '"1"'),
        ("[1, 2]", "[2, 1]"),
        ("[]", "{}"),
        ("9007199254740993", "9007199254740992"),
        ('{"a": null}', "{}"),
        ('"a"', '"A"'),
        ('"é"', '"e\\u0301"'),
    ],
)
def test_what_a_value_says_is_content(one: str, other: str) -> None:
    assert canonical(orjson.loads(one)) != canonical(orjson.loads(other))


@given(_json(_ANY))
def test_content_read_back_from_any_json_writer_is_the_same(value: Any) -> None:
    expected = canonical(value)
    assert canonical(orjson.loads(expected)) == expected
    assert canonical(orjson.loads(json.dumps(value, indent=1))) == expected
    assert canonical(orjson.loads(json.dumps(value, ensure_ascii=False))) == expected


@given(_json(_EXACT), _json(_EXACT))
def test_two_contents_are_the_same_only_if_they_are_equal(one: Any, other: Any) -> None:
    equal = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical(one) == canonical(other)) is equal


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [201, 254, 1000])
def test_content_nested_too_deep_is_a_value_error_and_nothing_worse(
    opening: str, depth: int
) -> None:
    closing = {"[": "]", '{"a":': "}"}[opening]
    value = orjson.loads(opening * depth + "1" + closing * depth)
    with pytest.raises(ValueError, match="more than 200 deep"):
        canonical(value)


def test_content_two_hundred_deep_has_its_bytes() -> None:
    text = b"[" * 200 + b"1" + b"]" * 200
    assert canonical(orjson.loads(text)) == text


def test_another_users_key_gives_another_digest_and_identity() -> None:
    assert content_digest(KEY, b"{}") != content_digest(os.urandom(32), b"{}")
    assert _identity() != _identity(key=os.urandom(32))


_PARTS = st.tuples(
    st.sampled_from(["R4", "DSTU2"]),
    st.sampled_from(["A", "AB", "B"]),
    st.text("Aab:\0", max_size=3),
    st.text("Aab:\0", min_size=1, max_size=3),
)


@given(_PARTS, _PARTS)
def test_two_records_have_one_identity_only_if_all_their_parts_agree(
    one: tuple[str, str, str, str], other: tuple[str, str, str, str]
) -> None:
    first, second = (
        _identity(fhir_version=each[0], resource_type=each[1], source=each[2], record_id=each[3])
        for each in (one, other)
    )
    assert (first == second) is (one == other)


def test_a_record_with_an_id_keeps_its_identity_when_its_content_changes() -> None:
    assert _identity(digest=b"a" * 32) == _identity(digest=b"b" * 32)


@pytest.mark.parametrize("no_id", [None, ""])
def test_a_record_without_an_id_is_its_content(no_id: str | None) -> None:
    assert _identity(record_id=no_id, digest=b"a") == _identity(record_id=no_id, digest=b"a")
    assert _identity(record_id=no_id, digest=b"a") != _identity(record_id=no_id, digest=b"b")


def test_an_id_that_looks_like_a_digest_is_still_an_id() -> None:
    digest = b"0123456789abcdef0123456789abcdef"
    assert _identity(record_id="content:" + digest.decode(), digest=digest) != _identity(
        record_id=None, digest=digest
    )


def test_no_source_and_an_empty_source_are_the_same_source() -> None:
    assert _identity(source=None) == _identity(source="")


_TAGGED = {"tag": [{"code": "a"}], "profile": ["p"], "security": [{"code": "R"}]}


@pytest.mark.parametrize(
    ("meta", "left"),
    [
        ({"versionId": "1"}, None),
        ({"lastUpdated": "2026-01-01T00:00:00Z"}, None),
        ({"lastUpdated": {"of": "another type"}, "versionId": 1}, None),
        ({"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z", **_TAGGED}, _TAGGED),
        (_TAGGED, _TAGGED),
        ({}, {}),
        ("text", "text"),
    ],
)
def test_version_metadata_is_no_content_and_tags_are(meta: Any, left: Any) -> None:
    resource = {"resourceType": "Condition", "meta": meta, "id": "1"}
    rest = without_version_metadata(resource)
    assert rest.get("meta") == left
    assert ("meta" in rest) is (left is not None)
    assert (rest["resourceType"], rest["id"]) == ("Condition", "1")
    assert resource["meta"] == meta


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://fhir.example.org/r4/Condition/1", "https://fhir.example.org/r4"),
        ("https://north.example/Condition/o0", "https://north.example"),
        ("https://Host.Example:443/a/b/Condition/1?x=1#y", "https://host.example/a/b"),
        ("http://host.example.:8080/Condition/1/_history/2", "http://host.example:8080"),
        ("https://jane:secret@host.example/Condition/1", "https://host.example"),
        ("https://host.example/Condition/r4/Condition/1", "https://host.example/Condition/r4"),
        ("https://host.example/r4/Condition/Condition", "https://host.example/r4"),
        ("https://host.example/r4/Observation/1", None),
        ("https://host.example/r4/Condition/", None),
        ("https://host.example/r4/Condition", None),
        ("https:///Condition/1", None),
        ("https://[::1/Condition/1", None),
        ("https://host.example:port/Condition/1", None),
        ("urn:uuid:1", None),
        ("Condition/1", None),
        ("", None),
        (None, None),
    ],
)
def test_the_server_of_a_record_is_its_url_less_type_and_id(
    url: str | None, server: str | None
) -> None:
    assert server_of(url, "Condition") == server


def test_where_a_resource_will_be_is_its_version_its_type_and_its_id() -> None:
    def key(**parts: str) -> bytes:
        named = {"fhir_version": "R4", "resource_type": "Condition", "resource_id": "1", **parts}
        return upstream_key(named.pop("key", "").encode() or KEY, **named)

    assert key() == key()
    assert len(key()) == 32
    others = [
        key(key="another user's"),
        key(fhir_version="DSTU2"),
        key(resource_type="Observation"),
        key(resource_id="2"),
        key(resource_type="Conditio", resource_id="n1"),
    ]
    assert len({key(), *others}) == 6
    # Nothing shows that a record has the identity of another's place.
    assert key() != _identity(source=None)
