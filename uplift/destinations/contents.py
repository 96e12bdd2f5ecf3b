"""Reads the content of a response: never more than a limit, packed or not."""

import zlib
from collections.abc import AsyncIterator

import httpx

from uplift.errors import ResponseTooLarge

ACCEPT_ENCODING = "gzip"
"""What `read_content` unpacks."""

_GZIP = frozenset({"gzip", "x-gzip"})  # RFC 9110, 8.4.1.3: the same coding
_MAX_HEAD_BYTES = 64 * 1024


async def read_content(response: httpx.Response, limit: int) -> bytes:
    """The content of a streamed response: see `read_chunks`."""
    return await read_chunks(response.headers, response.aiter_raw(), limit)


async def read_chunks(headers: httpx.Headers, chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """The content of a response, unpacked, from its head and the chunks of its content.

    httpx unpacks every coding that a response names, each chunk as a whole: 300 bytes that are
    packed three times cost it gigabytes. Here there is one coding at most, and no more than `limit`
    bytes come out of it.

    Raises ResponseTooLarge beyond `limit`, and httpx.DecodingError for another coding than gzip,
    for more than one, for content that does not unpack completely, and for a head beyond 64 KiB.
    """
    if sum(len(name) + len(value) + 4 for name, value in headers.raw) > _MAX_HEAD_BYTES:
        raise httpx.DecodingError("The head of the response has more than 64 KiB.")
    if "content-encoding" not in headers:
        return await _plain(chunks, limit)
    named = headers.get_list("content-encoding", split_commas=True)
    codings = [coding for each in named if (coding := each.strip().lower()) not in ("", "identity")]
    match codings:
        case []:
            return await _plain(chunks, limit)
        case [coding] if coding in _GZIP:
            return await _unpacked(chunks, limit)
    raise httpx.DecodingError("The response has another content coding than gzip, or several.")


async def _plain(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > limit:
            raise ResponseTooLarge
    return bytes(content)


async def _unpacked(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    content = bytearray()
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    begun = False  # a response without content may name a coding as well
    async for chunk in chunks:
        if unpacker.eof:
            raise httpx.DecodingError("The response goes on behind its packed content.")
        begun = True
        try:
            # One byte more than the limit: 0 would mean no limit.
            content += unpacker.decompress(chunk, limit + 1 - len(content))
        except zlib.error as error:
            raise httpx.DecodingError("The response is not gzip, as it says.") from error
        if len(content) > limit:
            raise ResponseTooLarge
    if begun and not unpacker.eof:
        raise httpx.DecodingError("The packed content of the response is not complete.")
    return bytes(content)
