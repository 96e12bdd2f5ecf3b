"""Bodies of any size that cost a validator the most, by shape: for the limits of validation."""

from collections.abc import Callable

import orjson

from uplift.fhir.versions import FhirVersion

Shape = Callable[[int, FhirVersion], bytes]


def _filled(head: bytes, item: bytes, tail: bytes, size: int, sep: bytes = b",") -> bytes:
    count = max(1, (size - len(head) - len(tail)) // (len(item) + len(sep)))
    return head + sep.join([item] * count) + tail


def _patient(name: str, item: bytes) -> Shape:
    head = b'{"resourceType":"Patient","%s":[' % name.encode()
    return lambda size, _: _filled(head, item, b"]}", size)


def _text(element: str, head: str, unit: str, tail: str) -> Shape:
    def made(size: int, _: FhirVersion) -> bytes:
        count = (size - 200) // len(orjson.dumps(unit)[1:-1])
        text = head + unit * count + tail
        value: object = text
        for name in reversed(element.split(".")):
            value = [value] if name == "*" else {name: value}
        return orjson.dumps({"resourceType": "Patient", **value})  # type: ignore[dict-item]

    return made


def _names(size: int, _: FhirVersion) -> bytes:
    names = b",".join(b'"%07x":1' % number for number in range(size // 12))
    return b'{"resourceType":"Patient",%s}' % names


def _attributes(size: int, _: FhirVersion) -> bytes:
    tag = " ".join(f"a{number:x}=''" for number in range(size // 10))
    return orjson.dumps(
        {"resourceType": "Patient", "text": {"status": "generated", "div": f"<div {tag}>a</div>"}}
    )


def _nested_contained(size: int, _: FhirVersion) -> bytes:
    return _filled(
        b'{"resourceType":"Patient","contained":[',
        b'{"resourceType":"Patient","contained":[' * 25
        + b'{"resourceType":"Patient"}'
        + b"]}" * 25,
        b"]}",
        size,
    )


def _nested_extensions(size: int, _: FhirVersion) -> bytes:
    return _filled(
        b'{"resourceType":"Patient","extension":[',
        b'{"url":"u","extension":[' * 28 + b'{"url":"u","valueInteger":"x"}' + b"]}" * 28,
        b"]}",
        size,
    )


def _deep(size: int, _: FhirVersion) -> bytes:
    return b'{"resourceType":"Patient","name":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}"


def _types(size: int, version: FhirVersion) -> bytes:
    from uplift.fhir.compiled import resource_types

    items = b",".join(
        orjson.dumps({"resourceType": each, "id": "a b"})
        for each in sorted(resource_types(version))
    )
    return _filled(b'{"resourceType":"Patient","contained":[', items, b"]}", size)


SHAPES: dict[str, Shape] = {
    "two values of a choice": _patient(
        "extension", b'{"url":"u","valueString":"a","valueInteger":1}'
    ),
    "no url, all values wrong": _patient("extension", b'{"valueString":1,"valueInteger":"a"}'),
    "valid extensions": _patient("extension", b'{"url":"u","valueString":"a"}'),
    "wrong components": lambda size, _: _filled(
        b'{"resourceType":"Observation","status":"final","code":{"text":"a"},"component":[',
        b'{"code":{"coding":[{"code":1}]},"valueString":1,"valueInteger":"a"}',
        b"]}",
        size,
    ),
    "nested contained": _nested_contained,
    "many contained": _patient("contained", b'{"resourceType":"Patient"}'),
    "contained of every type": _types,
    "many Bundles contained": _patient("contained", b'{"resourceType":"Bundle","entry":[{}]}'),
    "800,000 names": _names,
    "many narratives": _patient(
        "contained",
        b'{"resourceType":"Patient","text":{"status":"generated","div":"<div><b>a</b></div>"}}',
    ),
    "attributes in one tag": _attributes,
    "tags of a narrative": _text("text.div", "<div>", "<b>a</b>", "</div>"),
    "entities of a narrative": _text("text.div", "<div>", "&nbsp;", "</div>"),
    "open tags of a narrative": _text("text.div", "<div>", "<b>", "</div>"),
    "empty arrays": _patient("name", b"[]"),
    "empty objects": _patient("name", b"{}"),
    "nulls": lambda size, _: _filled(
        b'{"resourceType":"Patient","name":[{"given":[', b"null", b"]}]}", size
    ),
    "numbers": _patient("name", b"1"),
    "deep nesting": _deep,
    "extensions of extensions": _nested_extensions,
    "wrong codes": lambda size, _: _filled(
        b'{"resourceType":"Patient","address":[', b'{"use":"x"}', b"]}", size
    ),
    "long wrong base64": _text("photo.*.data", "", "A", "!"),
    "long base64": _text("photo.*.data", "", "AAAA", ""),
    "long base64 in lines": _text("photo.*.data", "", "A \n", "!"),
    "long dateTime": _text("birthDate", "2000-01-01T00:00:00.", "0", ""),
    "long code": _text("gender", "", "a ", ""),
    "long uri": _text("implicitRules", "", "a", " "),
    "long id": _text("id", "", "a", "_"),
    "long blank": _text("language", "", " ", ""),
    "long reference": _text("managingOrganization.reference", "", "a/", "#"),
    "many escapes": _text("language", "", "\\\n", ""),
    "escaped quotes": _text("language", "", '"', ""),
    "not ASCII": _text("language", "", "é\U0001f600", ""),
    "null characters": _text("language", "a", "\0", ""),
    "a huge number": lambda size, _: (
        b'{"resourceType":"Patient","multipleBirthInteger":%s}' % (b"9" * size)
    ),
    "huge numbers": lambda size, _: _filled(
        b'{"resourceType":"Patient","multipleBirthInteger":[', b"9" * 1000 + b"e9", b"]}", size
    ),
    "strings of names": lambda size, _: _filled(
        b'{"resourceType":"Patient","name":[{"given":[', b'"a"', b"]}]}", size
    ),
    "periods": lambda size, _: _filled(
        b'{"resourceType":"Patient","name":[', b'{"period":{"start":"2","end":"1"}}', b"]}", size
    ),
    "quotes": lambda size, _: _filled(b'{"resourceType":"Patient","name":[', b'""', b"]}", size),
}
"""Each makes a body of about so many bytes for a version."""
