"""What a server made of a resource that was sent to it, and what a page says of that. Pure."""

import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple
from xml.etree.ElementTree import ParseError, canonicalize

import msgspec

_XHTML = ' xmlns="http://www.w3.org/1999/xhtml"'
_ROW = re.compile(
    r"^\| `(?P<element>[^`]+)` \| (?P<what>\w+) \| (?P<versions>[\w, ]+) \|", re.MULTILINE
)


class Difference(NamedTuple):
    """One kind of difference: an element, as in `meta.versionId`, and what happened to it.

    `added`, `removed`, `changed`; `reordered`: a list has the same items in another order;
    `respelled`: a narrative is the same XHTML, written in another way.
    """

    element: str
    what: str


def differences(sent: Any, stored: Any, element: str = "") -> Iterator[Difference]:
    """Every difference. Numbers are equal if their digits are."""
    if isinstance(sent, dict) and isinstance(stored, dict):
        for name in sorted(sent.keys() | stored.keys()):
            inner = f"{element}.{name}".removeprefix(".")
            # Of an object that one of them lacks, each of its elements is told.
            ours, theirs = sent.get(name, {}), stored.get(name, {})
            if name not in stored and not isinstance(ours, dict):
                yield Difference(inner, "removed")
            elif name not in sent and not isinstance(theirs, dict):
                yield Difference(inner, "added")
            else:
                yield from differences(ours, theirs, inner)
    elif isinstance(sent, list) and isinstance(stored, list):
        yield from _of_lists(sent, stored, element)
    elif _text(sent) != _text(stored):
        is_narrative = element.endswith(".div") and _markup(sent) == _markup(stored) is not None
        yield Difference(element, "respelled" if is_narrative else "changed")


def told(page: str, fhir_version: str) -> set[Difference]:
    """The differences that a page lists for that version in a table: element, what, versions."""
    return {
        Difference(row["element"], row["what"])
        for row in _ROW.finditer(page)
        if fhir_version.upper() in row["versions"].split(", ")
    }


def _of_lists(sent: list[Any], stored: list[Any], element: str) -> Iterator[Difference]:
    if len(sent) != len(stored):
        yield Difference(element, "changed")
    elif _text(sent) != _text(stored) and Counter(map(_text, sent)) == Counter(map(_text, stored)):
        yield Difference(element, "reordered")
    else:
        for ours, theirs in zip(sent, stored, strict=True):
            yield from differences(ours, theirs, element)


def _text(value: Any) -> str:
    """Of equal values the same; 1.0 and 1.00, or 1 and true, are none."""
    if isinstance(value, dict):
        return repr(sorted((name, _text(inner)) for name, inner in value.items()))
    if isinstance(value, list):
        return repr([_text(each) for each in value])
    if isinstance(value, msgspec.Raw):  # a number as it was written
        return bytes(value).decode()
    return str(value) if isinstance(value, Decimal) else repr(value)


def _markup(div: Any) -> str | None:
    if not isinstance(div, str):
        return None
    spelled = div if "xmlns=" in div else div.replace("<div", f"<div{_XHTML}", 1)
    try:
        return canonicalize(spelled)
    except ParseError:
        return None
