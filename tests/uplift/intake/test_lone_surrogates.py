"""Halves of surrogate pairs, while a text is taken apart."""

import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift.intake.lone_surrogates import with_halves, without_halves

_D800 = b"\xed\xa0\x80"


@pytest.mark.parametrize(
    ("text", "standing"),
    [
        (rb'"\ud800"', b'"%s"' % _D800),
        (rb'"\uD800"', b'"%s"' % _D800),
        (rb'"\udfff"', b'"%s"' % _D800),
        (rb'"\ud800\ud800"', b'"%s%s"' % (_D800, _D800)),
        (rb'"\ud800\ud83d\ude00"', rb'"%s\ud83d\ude00"' % _D800),
        (rb'"\ude00\ud83d"', b'"%s%s"' % (_D800, _D800)),
        (rb'"\ud800\\udc00"', rb'"%s\\udc00"' % _D800),
        (rb'"\ud800\n\udc00"', rb'"%s\n%s"' % (_D800, _D800)),
        # These are no halves.
        (rb'"\ud83d\ude00"', None),
        (rb'"\\ud800"', None),
        (rb'"\\\\ud800"', None),
        (rb'"\ud7ff\ue000"', None),
        (rb'"\ud80"', None),
        (b"\\", None),
        (b'\0\0"\\ud800"', None),  # no JSON
        (b"", None),
    ],
)
def test_each_half_stands_as_bytes_that_are_not_utf_8(text: bytes, standing: bytes | None) -> None:
    assert without_halves(text) == (text if standing is None else standing)
    again = with_halves(without_halves(text))
    assert again == text if standing is None else b"\xed" not in again


@given(st.text(st.characters(exclude_categories=())).map(lambda text: json.dumps(text).encode()))
def test_what_can_be_kept_stays_and_what_cannot_be_kept_stays_so(text: bytes) -> None:
    can_be_kept = _can_be_kept(text)
    standing = without_halves(text)
    assert (standing == text) is can_be_kept
    assert _can_be_kept(standing) is _can_be_kept(with_halves(standing)) is can_be_kept


def _can_be_kept(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


@pytest.mark.parametrize("part", [rb"\ud800", rb"\n", rb"\ud83d\ude00", b"a", rb"\\ud800"])
def test_the_time_is_short_whatever_the_text_is(part: bytes) -> None:
    body = part * (256 * 1024 // len(part))
    started = time.process_time()
    with_halves(without_halves(body))
    assert time.process_time() - started < 0.5
