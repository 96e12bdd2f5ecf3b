"""Counting colons finds a name that is there twice exactly where a strict reader finds it."""

import random

import orjson
import pytest

from uplift.errors import UnreadableUpload
from uplift.intake.labels import Labels
from uplift.intake.repeated_names import count_colons, quoted, repeated_name
from uplift.intake.submission import parse

R4 = Labels(fhir_version="R4")

_SPACE = ("", "", "", " ", "\n", "\t ", "\r\n")
# Few names and many spellings, so that names repeat often, and each hides in another way.
_NAMES = ("a", "b:", ":", "", "\\", "\\u003a", "::é", '"', "c")
_TEXTS = (*_NAMES, "http://x:1", "u003a", "\\\\", "\n", "😀:", "12:30:00")
_NUMBERS = ("0", "-1", "1.50", "1E+2", "72.0", "1e16", "9999999999999999999999999")


def spelled(text: str, random_: random.Random) -> str:
    """A string of JSON, each character in one of its spellings."""
    parts = []
    for each in text:
        code = ord(each)
        if code < 0x10000 and random_.random() < 0.3:
            digits = f"{code:04x}" if random_.random() < 0.5 else f"{code:04X}"
            parts.append(f"\\u{digits}")
        elif each in '"\\\n':
            parts.append({'"': '\\"', "\\": "\\\\", "\n": "\\n"}[each])
        else:
            parts.append(each)
    return f'"{"".join(parts)}"'


def written(depth: int, random_: random.Random) -> str:
    """Some value as JSON, in which an object can have a name twice."""
    space = random_.choice(_SPACE)
    kind = random_.random() if depth else 1.0
    if kind < 0.5:
        names = random_.choices(_NAMES, k=random_.randrange(4))
        members = [
            f"{space}{spelled(name, random_)}{space}:{space}{written(depth - 1, random_)}"
            for name in names
        ]
        return "{" + ",".join(members) + space + "}"
    if kind < 0.7:
        items = [written(depth - 1, random_) for _ in range(random_.randrange(3))]
        return "[" + f"{space},".join(items) + space + "]"
    if random_.random() < 0.7:
        return spelled(random_.choice(_TEXTS), random_)
    return random_.choice((*_NUMBERS, "true", "null"))


def test_counting_finds_what_a_strict_reader_finds_in_20_000_bodies() -> None:
    random_ = random.Random(13)
    repeated = 0
    for _ in range(20_000):
        body = written(3, random_).encode()
        kept = orjson.dumps(orjson.loads(body)).count(b":")
        name = repeated_name(body)
        assert (count_colons(body) != kept) is (name is not None), body
        repeated += name is not None
    assert 2_000 < repeated < 18_000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"resourceType":"Condition","id":"1","id":"2"}', "twice: `id`"),
        (b'{"resourceType":"Condition","\\u0069d":"1","id":"2"}', "twice: `id`"),
        (b'{"resourceType":"Condition","a":[{"b":{"c":1,"c":1}}]}', "twice: `c`"),
        (b'{"resourceType":"Condition","id":"\\u003a","id":"2"}', "twice: `id`"),
        (b'{"resourceType":"Condition","id":1,"id":"\\u003A"}', "twice: `id`"),
        (b'{"resourceType":"Condition","x":"\\\\u003a","id":1,"id":"\\\\\\u003a"}', "twice: `id`"),
        (b'{"resourceType":"Patient","resourceType":"Condition"}', "twice: `resourceType`"),
        (b'{"resourceType":"Condition","Jane Doe":1,"Jane Doe":2}', "a name twice\\. "),
        (b'{"user":"a","user":"a","resource":{"resourceType":"Condition"}}', "twice: `user`"),
        (b'{"user":"a:\\u003a","user":"","resource":{"resourceType":"Condition"}}', "`user`"),
        (b'{"resource":{},"re\\u0073ource":{"resourceType":"Condition"}}', "`resource`"),
        (b'{"resource":{"resourceType":"Condition","id":1,"id":1},"user":null}', "`id`"),
        (
            b'{"resourceType":"Condition","id":"1","id":"' + b"2" * 70_000 + b'"}',
            "a name twice\\. ",
        ),
    ],
)
def test_a_body_with_a_name_twice_is_unreadable_and_the_message_names_it(
    body: bytes, message: str
) -> None:
    with pytest.raises(UnreadableUpload, match=message) as refused:
        parse(body, R4)
    assert "Jane" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceType":"Condition","a":{"id":1},"b":{"id":1},"c":[{"id":1},{"id":1}]}',
        b'{"resourceType":"Condition","id":"\\u003a\\u003A\\\\u003a\\\\\\u003a:\\":"}',
        b'{"resourceType":"Condition","":{"":{"":1}},":":"\\u003c\\u003e"}',
        b'{"resourceType" : "Condition" , "n":72.0, "m":-0.0, "o":1e2}',
        b'{"user":"a:b","source":"\\u003a","resource" : {"resourceType":"X","url":"urn\\u003Ax"}}',
    ],
)
def test_a_body_whose_names_differ_is_read_however_its_colons_are_spelled(body: bytes) -> None:
    assert parse(body, R4).resource_type in ("Condition", "X")


def test_a_name_is_quoted_only_if_it_looks_like_a_field() -> None:
    assert quoted("fhirVersion") == " `fhirVersion`"
    for name in ("Jane Doe", "", "1970-01-01", "a" * 41, "é", "a\n"):
        assert quoted(name) == ""
