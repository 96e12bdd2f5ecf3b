"""Finds names that an object of JSON has twice. Pure.

RFC 8259, 4, lets each reader choose which of the two counts. So Uplift, a proxy and the destination
could read three different records out of the same bytes.

A reader that keeps one of the two drops the other one's name, and the colon after it. So a text
whose names all differ has as many colons as its parsed value written again: colons stand only
after names and in strings. In a string a colon can be escaped, as `\\u003a`. That is the only other
spelling of a colon, and such colons are counted too: else they would stand in for dropped ones.
"""

import json
import re
from typing import Any

# Reading strictly costs several times the counting. It only makes the message better.
_MAX_STRICT_BYTES = 64 * 1024
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}", re.ASCII)


def count_colons(text: bytes) -> int:
    """How many colons valid JSON has: after names, in strings, and escaped in strings."""
    colons = text.count(b":")
    # The search for one byte comes first, because it is many times faster.
    if b"\\" not in text or b"\\u003" not in text:
        return colons
    # A backslash before the `u` begins an escape only if it is not itself escaped.
    unpaired = text.replace(b"\\\\", b"")
    return colons + unpaired.count(b"\\u003a") + unpaired.count(b"\\u003A")


def repeated_name(text: bytes) -> str | None:
    """The first name that an object has twice; None if there is none, or for text over 64 KiB.

    Text that is not JSON has none either.
    """
    if len(text) > _MAX_STRICT_BYTES:
        return None
    try:
        json.loads(text, object_pairs_hook=_strict)
    except _Repeated as error:
        return error.name
    except (ValueError, RecursionError):
        return None
    return None


def quoted(name: str) -> str:
    """A name for a message: of up to 40 letters, digits, dashes and underscores, or none at all.

    A name can be anything that a caller wrote, a person's name for example.
    """
    return f" `{name}`" if _PLAIN_NAME.fullmatch(name) else ""


class _Repeated(Exception):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def _strict(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _Repeated(name)
        seen.add(name)
