"""Bodies of batches, read without an API around them."""

from typing import Any

import orjson
import pytest

from tests.factories import resource
from uplift.api.batch_bodies import BUNDLE_TYPES, bundle_entries, read_bundle
from uplift.errors import UnreadableUpload
from uplift.intake.labels import Labels
from uplift.intake.submission import parse


def bundle(*entries: Any, type_: Any = "collection") -> bytes:
    return orjson.dumps({"resourceType": "Bundle", "type": type_, "entry": list(entries)})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[]", "wrong"),
        (orjson.dumps(resource()), "not a FHIR Bundle"),
        (orjson.dumps({"fhirVersion": "R4", "resource": resource()}), "not a FHIR Bundle"),
        (bundle(type_="message"), "collection"),
        (bundle(type_="document"), "collection"),
        (bundle(type_=None), "collection"),
        (bundle(type_=["batch"]), "wrong"),
        (b'{"resourceType":"Bundle","type":"batch","entry":{}}', "wrong"),
        (b'{"resourceType":"Bundle","type":"batch","entry":' + b"[" * 9000, ""),
        (b'{"resourceType":"Bundle","type":"secret-canary"}', "collection"),
        (b'{"resourceType":"Bundle","type":"batch","entry":[{"a":"\\x"}]}', "not JSON"),
        (b'{"resourceType":"Bundle","type":"batch","entry":[{"a":"\\ud800"},]}', "not JSON"),
        (b'{"resourceType":"Bundle","type":"\\ud800"}', "not JSON"),
        (b'{"resourceType":"Bundle","type":"batch","\xff":1}', "not JSON"),
        (b'{"resourceType":"Bundle","type":"batch","\\ud800":1}', "not JSON"),
    ],
)
def test_a_body_that_is_not_a_bundle_of_uploads_is_refused_without_quoting_it(
    body: bytes, message: str
) -> None:
    with pytest.raises(UnreadableUpload) as refused:
        read_bundle(body)
    assert message in str(refused.value)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("body", [b'{"resourceType":"Bundle","type":"batch"}', bundle()])
def test_a_bundle_can_be_empty(body: bytes) -> None:
    assert read_bundle(body) == []


@pytest.mark.parametrize("type_", BUNDLE_TYPES)
async def test_each_entry_keeps_the_bytes_of_its_resource(type_: str) -> None:
    first = b'{ "resourceType" : "Observation", "id": "a", "valueDecimal": 1.50 }'
    body = (
        b'{"resourceType":"Bundle","type":"' + type_.encode() + b'","total":2,"entry":['
        b'{"fullUrl":"urn:uuid:1","resource":' + first + b',"request":{"method":"POST"}},\n'
        b'{"resource":{"resourceType":"Patient","id":"b"}}]}'
    )
    entries = [entry async for part in bundle_entries(read_bundle(body)) for entry in part]
    assert [entry.line for entry in entries] == [1, 2]
    assert entries[0].body == first


async def test_an_entry_without_a_resource_is_a_problem_of_that_entry_only() -> None:
    body = bundle(
        {"resource": resource()},
        {"request": {"method": "DELETE", "url": "Patient/1"}},
        7,
        None,
        {"resource": resource()},
    )
    entries = [entry async for part in bundle_entries(read_bundle(body)) for entry in part]
    assert [entry.problem_type is None for entry in entries] == [True, False, False, False, True]


@pytest.mark.parametrize(
    "resource",
    [
        b'{"resourceType":"Basic","a":"\\ud800"}',
        b'{"resourceType":"Basic","a":"\\udc00\\ud800"}',
        b'{"resourceType":"Basic","\\ud800":1}',
        b'{"resourceType":"Basic","a":"\\uDFFF"}',
        b'{"resourceType":"Basic","a":"\xed\xa0\x80\\udc00"}',
        b'{"resourceType":"Basic","a":"\xff"}',
        b'{"resourceType":"Basic","a":1e999}',
    ],
)
async def test_an_entry_that_cannot_be_kept_leaves_the_others_as_they_came(
    resource: bytes,
) -> None:
    text = rb'"\u003a\ud83d\ude00\\ud800' + '\U0001f600\ud7ff"'.encode()
    other = b'{ "resourceType": "Basic", "a": %s }' % text
    whole = b'{"resourceType":"Bundle","type":"batch","entry":[%s]}'
    body = whole % b",".join(b'{"resource":%s}' % each for each in (other, resource, other))
    entries = [entry async for part in bundle_entries(read_bundle(body)) for entry in part]
    assert [entry.body for entry in (entries[0], entries[2])] == [other, other]
    labels = Labels(fhir_version="R4")
    assert parse(other, labels).body == other
    with pytest.raises(UnreadableUpload):
        parse(entries[1].body, labels)


_OK = b'{"resource":{"resourceType":"Patient","id":"1"}}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceType":"Bundle","type":"batch","type":"batch","entry":[%s]}',
        b'{"resourceType":"Bundle","type":"batch","entry":[],"entry":[%s]}',
        b'{"resourceType":"Bundle","type":"batch","entry":[%s,{"resource":{"a":{"b":1,"b":1}}}]}',
        b'{"resourceType":"Bundle","type":"batch","entry":[%s,{"resource":{},"resource":{}}]}',
        b'{"resourceType":"Bundle","type":"batch","entry":[%s],"meta":{"a":"\\u003a","a":1}}',
        b'{"resourceType":"Bundle","type":"batch","entry":[%s],"a\\u003a":1,"a:":1}',
    ],
)
def test_a_bundle_with_a_name_twice_anywhere_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(UnreadableUpload, match="a name twice"):
        read_bundle(body % _OK)


def test_a_bundle_whose_colons_are_escaped_is_read() -> None:
    body = (
        b'{ "resourceType" : "Bundle", "type":"batch", "a\\u003a:" : {"x":"\\u003A\\\\u003a"},'
        b' "entry":[%s, {"resource":{"url":"http\\u003a//x", "deep":%s}}, {"a":1e999,"b":1}]}'
    )
    deep = b'[{"a":' * 150 + b"1" + b"}]" * 150
    assert len(read_bundle(body % (_OK, deep))) == 3
