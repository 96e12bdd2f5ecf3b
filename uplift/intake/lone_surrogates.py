"""Takes a JSON text apart that has halves of surrogate pairs somewhere. Pure.

RFC 8259, 8.2, allows `"\\ud800"`, and no reader here takes it: UTF-8 has no such character. A
parser that only skips a part refuses the whole text for it. It does skip bytes that are not UTF-8.
So each half stands as such bytes while the text is taken apart. Nobody takes the part with it, so
which half it was does not matter.
"""

import re

_FIRST = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_SECOND = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF = re.compile(rb"%b(?!%b)|(?<!%b)%b" % (_FIRST, _SECOND, _FIRST, _SECOND))
# UTF-8 would encode a half so, if it could. So no valid text has these bytes.
_STANDING = b"\xed\xa0\x80"
# Two that no JSON has, for an escaped backslash: each other backslash begins an escape.
_BACKSLASH, _NO_BACKSLASH = rb"\\", b"\0\0"


def without_halves(text: bytes) -> bytes:
    """The text with bytes that are not UTF-8 for each half of a surrogate pair."""
    if b"\0" in text:
        return text  # no JSON in any case
    standing = _HALF.sub(_STANDING, text.replace(_BACKSLASH, _NO_BACKSLASH))
    return standing.replace(_NO_BACKSLASH, _BACKSLASH)


def with_halves(text: bytes) -> bytes:
    """A part of such a text, with halves of surrogate pairs again: so that readers name these."""
    return text.replace(_STANDING, rb"\ud800")
