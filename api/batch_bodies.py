"""Entries out of a batch's body: the lines of NDJSON as they arrive, or the entries of a Bundle."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack

import msgspec

from uplift.api.intake import Intake
from uplift.errors import UnreadableUpload
from uplift.intake.accept_batch import GROUP_BYTES, Entry
from uplift.intake.ndjson import Line, LineReader
from uplift.intake.submission import NOT_JSON

NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/fhir+ndjson")

# What a Bundle may be (https://hl7.org/fhir/R4/valueset-bundle-type.html) whose entries are
# resources that stand for themselves.
BUNDLE_TYPES = ("collection", "batch", "transaction", "searchset")


async def read_lines(
    chunks: AsyncIterator[bytes], limit: int, intake: Intake
) -> AsyncGenerator[Entry, None]:
    """The lines of a stream, each as soon as it is whole; one longer than `most` is a problem.

    A stream that breaks gives its whole lines, and then its error. Raises a Problem (503) if
    there is no room for a long line.
    """
    lines = LineReader(limit)
    async with AsyncExitStack() as room:
        has_room = False
        async for chunk in chunks:
            if not has_room and lines.buffered + len(chunk) > GROUP_BYTES:
                await room.enter_async_context(intake.body(limit))
                has_room = True
            for line in lines.feed(chunk):
                yield _entry(line, limit)
            # Whoever asks for more has committed the long line.
            if has_room and lines.buffered <= GROUP_BYTES:
                await room.aclose()
                has_room = False
        for line in lines.end():
            yield _entry(line, limit)


def _entry(line: Line, limit: int) -> Entry:
    if line.text is None:
        return Entry(
            line.number,
            problem_status=413,
            problem=f"The line has more than {limit} bytes. It was not read.",
        )
    return Entry(line.number, line.text)


class _Bundle(msgspec.Struct, rename="camel"):
    resource_type: str | None = None
    type: str | None = None
    # Raw, so that each resource keeps its own bytes, and one that is odd costs no other.
    entry: list[msgspec.Raw] = []


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"")


_BUNDLE: msgspec.json.Decoder[_Bundle] = msgspec.json.Decoder(_Bundle)
_ENTRY: msgspec.json.Decoder[_Entry] = msgspec.json.Decoder(_Entry)


def read_bundle(body: bytes) -> list[msgspec.Raw]:
    """The entries of a Bundle.

    Raises UnreadableUpload if the body is no Bundle of a type whose entries are uploads.
    """
    try:
        bundle = _BUNDLE.decode(body)
    except msgspec.ValidationError as error:
        # Its text names the field and the types, never a value.
        raise UnreadableUpload(f"The Bundle is wrong: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnreadableUpload(NOT_JSON) from None
    except RecursionError:
        raise UnreadableUpload("The Bundle's arrays and objects are nested too deep.") from None
    if bundle.resource_type != "Bundle":
        raise UnreadableUpload(
            "The body is not a FHIR Bundle. Send one, or the records as NDJSON with the content"
            f" type {NDJSON_TYPES[0]}; a single record goes to /v1/uploads."
        )
    if bundle.type not in BUNDLE_TYPES:
        raise UnreadableUpload(
            f"The Bundle's type is not {', '.join(BUNDLE_TYPES[:-1])} or {BUNDLE_TYPES[-1]}: its"
            " entries do not stand for themselves. Send what it holds as a collection."
        )
    return bundle.entry


async def bundle_entries(entries: list[msgspec.Raw]) -> AsyncGenerator[Entry, None]:
    """The resources in a Bundle's entries."""
    for entry in _numbered(entries):
        yield entry


def _numbered(entries: list[msgspec.Raw]) -> Iterator[Entry]:
    for number, entry in enumerate(entries, start=1):
        try:
            resource = bytes(_ENTRY.decode(entry).resource)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            resource = b""
        if resource:
            yield Entry(number, resource)
        else:
            yield Entry(number, problem_status=400, problem="The entry has no resource.")
