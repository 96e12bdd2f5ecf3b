"""Parses bytes into a resource, and finds the resources inside it."""

from collections.abc import Iterator
from typing import Any

import orjson

from uplift.errors import TooComplex, UnreadableDocument
from uplift.json_values import has_more_values

MAX_DEPTH = 64
"""The limit for arrays and objects inside each other. HL7's deepest example has 13."""

MAX_VALUES = 100_000
"""The usual limit for the values of a resource. HL7's largest example of HealthKit's types has
a few thousand."""

JsonObject = dict[str, Any]


def read(body: bytes, max_values: int = MAX_VALUES) -> JsonObject:
    """The JSON object in `body`. Raises UnreadableDocument.

    Raises TooComplex for more values than `max_values`, before one of them is made, and for more
    tags, attributes and entities in narratives.
    """
    if has_more_values(body, max_values):
        raise TooComplex(max_values)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # The parser's message may quote the text. Its position does not.
        raise UnreadableDocument(
            f"This is not JSON: the parser stops at line {error.lineno}, column {error.colno}. "
            "Send UTF-8 without a byte order mark."
        ) from None
    if not isinstance(document, dict):
        raise UnreadableDocument("A resource is a JSON object. This is another kind of JSON value.")
    # So few arrays and objects cannot be deeper, and so few bytes hold no more markup.
    few = len(body) <= max_values and body.count(b"[") + body.count(b"{") <= MAX_DEPTH
    if not few and _deeper_than(document, MAX_DEPTH, max_values):
        raise UnreadableDocument(f"Arrays and objects are nested more than {MAX_DEPTH} deep.")
    # JSON allows U+0000 only as an escape: a raw one does not parse.
    if b"\\u0000" in body and any("\0" in text for text in _texts(document)):
        raise UnreadableDocument("A name or a text contains U+0000, which FHIR forbids. Remove it.")
    return document


def _deeper_than(document: Any, depth: int, max_markup: int) -> bool:
    """Whether the document is deeper. Raises TooComplex if its narratives have more markup."""
    level = [document]
    markup = 0
    for _ in range(depth):
        markup += sum(_markup(value) for value in level if isinstance(value, dict))
        if markup > max_markup:
            raise TooComplex(max_markup)
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _markup(value: JsonObject) -> int:
    """How many tags, attributes and entities the object's narrative has, at most."""
    div = value.get("div")
    return div.count("<") + div.count("=") + div.count("&") if isinstance(div, str) else 0


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child)


def resources_in(resource: JsonObject, expression: str) -> Iterator[tuple[JsonObject, str]]:
    """The resource and every resource inside it, each with its expression.

    A resource can be in `contained`, and in the entries of a Bundle and of Parameters. Where such a
    place has something else, the schema of the outer resource finds that.
    """
    yield resource, expression
    inner = list(_items(resource, "contained", expression))
    match resource.get("resourceType"):
        case "Bundle":
            for entry, where in _items(resource, "entry", expression):
                inner += _member(entry, "resource", where)
                for response, there in _member(entry, "response", where):
                    inner += _member(response, "outcome", there)
        case "Parameters":
            inner += _parameters(resource, "parameter", expression)
    for each, where in inner:
        yield from resources_in(each, where)


def _parameters(holder: JsonObject, name: str, where: str) -> Iterator[tuple[JsonObject, str]]:
    for parameter, there in _items(holder, name, where):
        yield from _member(parameter, "resource", there)
        yield from _parameters(parameter, "part", there)


def _items(holder: JsonObject, name: str, where: str) -> Iterator[tuple[JsonObject, str]]:
    array = holder.get(name)
    if isinstance(array, list):
        for index, item in enumerate(array):
            if isinstance(item, dict):
                yield item, f"{where}.{name}[{index}]"


def _member(holder: JsonObject, name: str, where: str) -> Iterator[tuple[JsonObject, str]]:
    value = holder.get(name)
    if isinstance(value, dict):
        yield value, f"{where}.{name}"
