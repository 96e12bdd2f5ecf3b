"""JSON values are counted before they are built."""

import pytest

from uplift.errors import UnreadableUpload
from uplift.intake.submission import check_values

_TEXT = rb"a,b[c{d\"e,\\" * 100


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * 9 + b"1]",
        b'{"a":{"b":[' + b"0," * 7 + b"0]}}",
        b'{"text":"' + _TEXT + b'","more":["' + _TEXT + b'",2]}',
        b" " * 1000,
    ],
)
def test_texts_do_not_count_however_many_commas_they_hold(body: bytes) -> None:
    check_values(body, 12)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 12 + b"[]]",
        b"[" + b"1," * 12 + b"1]",
        b'[{"a":' * 9,
        b"{" + b'"",' * 13,
        b'["' + b",[" * 20,  # the text has no end, and orjson would refuse it
    ],
)
def test_more_values_than_the_limit_are_refused_with_the_setting_named(body: bytes) -> None:
    with pytest.raises(UnreadableUpload, match=r"12 JSON values.*UPLIFT_MAX_JSON_VALUES"):
        check_values(body, 12)


def test_a_text_of_many_escapes_is_counted_without_a_stack() -> None:
    check_values(b'["' + b"\\n," * 1_000_000 + b'"]', 12)
