"""Reads the body of a batch: lines of NDJSON while they arrive, or the entries of a Bundle."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from itertools import islice

import msgspec
import orjson

from uplift.api.bodies import too_large
from uplift.api.fair_share import Part
from uplift.api.problems import Problem
from uplift.errors import UnreadableUpload
from uplift.intake.accept_batch import GROUP_BYTES, Entry
from uplift.intake.labels import not_json
from uplift.intake.lone_surrogates import with_halves, without_halves
from uplift.intake.ndjson import Line, LineReader
from uplift.intake.repeated_names import count_colons
from uplift.intake.submission import check_values, names_repeated, run_unblocked
from uplift.problem_types import ProblemType
from uplift.settings import Settings

_LINES_AT_ONCE = 100

NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/fhir+ndjson")

# The types of a Bundle whose entries have a meaning of their own. Source of the list of types:
# https://hl7.org/fhir/R4/valueset-bundle-type.html
BUNDLE_TYPES = ("collection", "batch", "transaction", "searchset")


async def read_lines(
    chunks: AsyncIterator[bytes],
    settings: Settings,
    part: Part,
    charge_blank: Callable[[int], None],
) -> AsyncGenerator[list[Entry], None]:
    """The lines of a stream, in parts of those that are complete. A line of more bytes than a body
    may have is a problem of that line.

    `part` grows with a long line. `charge_blank` is told how many blank lines came. A stream that
    breaks yields its complete lines, then its error. Raises a Problem: 503 if there is no capacity
    for a long line, 413 if the stream has too many bytes or blank lines.
    """
    limit = settings.max_body_bytes
    lines = LineReader(limit)
    arrived = blank = 0
    async for chunk in chunks:
        arrived += len(chunk)
        if arrived > settings.max_batch_bytes:
            raise too_large(settings.max_batch_bytes)
        if lines.buffered + len(chunk) > GROUP_BYTES:
            await part.grow(lines.buffered + len(chunk) - part.size)
        complete = lines.feed(chunk)
        # A generator for each line, one around the other, would take longer than to find the lines.
        while part_of_lines := list(islice(complete, _LINES_AT_ONCE)):
            yield [_entry(line, limit) for line in part_of_lines]
        # The caller asks for more only after it committed the long line.
        if lines.buffered <= GROUP_BYTES:
            part.release()
        if lines.blank > blank:
            charge_blank(lines.blank - blank)
            blank = lines.blank
            if blank > settings.max_batch_lines:
                raise Problem(
                    ProblemType.BATCH_TOO_LONG,
                    f"The batch has more than {settings.max_batch_lines} blank lines. Send only"
                    " records.",
                    headers={"Connection": "close"},
                )
            await asyncio.sleep(0)  # to them, nothing else would let other requests go on
    if last := [_entry(line, limit) for line in lines.end()]:
        yield last


def _entry(line: Line, limit: int) -> Entry:
    if line.text is None:
        return Entry(
            line.number,
            problem_type=ProblemType.BODY_TOO_LARGE,
            problem=f"The line has more than {limit} bytes and was skipped. Send a smaller record.",
        )
    return Entry(line.number, line.text)


class _Bundle(msgspec.Struct, rename="camel"):
    resource_type: str | None = None
    type: str | None = None
    # Raw, so that each resource keeps its own bytes, and a wrong entry does not affect the others.
    entry: list[msgspec.Raw] = []


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"")


_BUNDLE: msgspec.json.Decoder[_Bundle] = msgspec.json.Decoder(_Bundle)
_ENTRY: msgspec.json.Decoder[_Entry] = msgspec.json.Decoder(_Entry)
_ELEMENTS: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(
    dict[str, msgspec.Raw]
)


def read_bundle(body: bytes) -> list[msgspec.Raw]:
    """The entries of a Bundle.

    Raises UnreadableUpload if the body is not a Bundle, or not of one of `BUNDLE_TYPES`, or if an
    object anywhere in it has a name twice.
    """
    try:
        readable, bundle = _taken_apart(body)
        elements = _ELEMENTS.decode(readable)
    except msgspec.ValidationError as error:
        # The error names the field and the types, never a value.
        raise UnreadableUpload(
            ProblemType.INVALID_BUNDLE, f"The Bundle is wrong: {error}."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise not_json(body) from None
    except RecursionError:
        raise UnreadableUpload(
            ProblemType.INVALID_BUNDLE, "The Bundle's arrays and objects are nested too deep."
        ) from None
    if bundle.resource_type != "Bundle":
        raise UnreadableUpload(
            ProblemType.INVALID_BUNDLE,
            "The body is not a FHIR Bundle. Send a Bundle, or send NDJSON with the content type"
            f" {NDJSON_TYPES[0]}. Send a single record to /v1/uploads.",
        )
    if bundle.type not in BUNDLE_TYPES:
        raise UnreadableUpload(
            ProblemType.INVALID_BUNDLE,
            f"The Bundle's type is not {', '.join(BUNDLE_TYPES[:-1])} or {BUNDLE_TYPES[-1]}. Send"
            " its resources in a Bundle of the type collection.",
        )
    if count_colons(readable) != _kept_colons(elements, bundle):
        raise names_repeated(body)
    return bundle.entry


def _taken_apart(body: bytes) -> tuple[bytes, _Bundle]:
    """The Bundle of a body, and the body that it was read from."""
    try:
        return body, _BUNDLE.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # A half in one entry must not refuse the others.
        readable = without_halves(body)
        if readable == body:
            raise
        return readable, _BUNDLE.decode(readable)


def _kept_colons(elements: dict[str, msgspec.Raw], bundle: _Bundle) -> int:
    """The colons of a Bundle's body that are left if a name that is there twice counts once.

    One element after the other is read, so that little memory is used.
    """
    if "entry" in elements:
        del elements["entry"]
        colons = 1 + sum(map(_colons_once_read, bundle.entry))
    else:
        colons = 0
    for name, element in elements.items():
        colons += name.count(":") + 1 + _colons_once_read(element)
    return colons


def _colons_once_read(text: msgspec.Raw) -> int:
    try:
        return orjson.dumps(orjson.loads(memoryview(text))).count(b":")
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        # It cannot be kept, so its entry becomes a problem of its own.
        return count_colons(bytes(text))


async def read_bundle_unblocked(body: bytes, max_values: int) -> list[msgspec.Raw]:
    """`read_bundle`, which does not block the event loop for a large body, after `check_values`."""

    def checked() -> list[msgspec.Raw]:
        check_values(body, max_values)
        return read_bundle(body)

    return await run_unblocked(len(body), checked)


async def bundle_entries(entries: list[msgspec.Raw]) -> AsyncGenerator[list[Entry], None]:
    """The entries of a Bundle, numbered from 1, in parts."""
    numbered = _numbered(entries)
    while part := list(islice(numbered, _LINES_AT_ONCE)):
        yield part


def _numbered(entries: list[msgspec.Raw]) -> Iterator[Entry]:
    for number, entry in enumerate(entries, start=1):
        try:
            resource = with_halves(bytes(_ENTRY.decode(entry).resource))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            resource = b""
        if resource:
            yield Entry(number, resource)
        else:
            yield Entry(
                number,
                problem_type=ProblemType.NOT_A_RESOURCE,
                problem="The entry has no resource. Add one, or leave the entry out.",
            )
