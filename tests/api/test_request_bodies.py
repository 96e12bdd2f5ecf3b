"""Where a body ends does not depend on how its bytes arrive."""

import pytest

from uplift.api.request_bodies import Body, ChunkedBody, CountedBody
from uplift.api.request_heads import RefusedError

_NEXT = b"GET /next HTTP/1.1\r\n"


def _feed(body: Body, data: bytes, size: int) -> tuple[bytes, bytes]:
    """What the parser gets, and what is left, if so many bytes arrive at once."""
    read = b""
    for start in range(0, len(data), size):
        part, rest = body.feed(data[start : start + size])
        read += part
        if body.complete:
            return read, rest + data[start + size :]
        assert not rest
    return read, b""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_counted_body_ends_at_its_length(size: int) -> None:
    assert _feed(CountedBody(10), b"0123456789" + _NEXT, size) == (b"0123456789", _NEXT)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 1000])
@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        (
            b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n",
            b"5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n",
        ),
        (b"0005;name=value\r\nhello\r\n000\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        (
            b"5\r\n\r\n\r\n\n\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
            b"5\r\n\r\n\r\n\n\r\n0\r\n\r\n",
        ),
        (b"0\r\n\r\n", b"0\r\n\r\n"),
    ],
)
def test_a_chunked_body_ends_after_its_last_chunk(sent: bytes, read: bytes, size: int) -> None:
    assert _feed(ChunkedBody(), sent + _NEXT, size) == (read, _NEXT)


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "sent",
    [
        b"x\r\n",
        b"\r\n",
        b"-5\r\n",
        b"0x5\r\nhello\r\n",
        b"5\nhello\n",
        b"5 \r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\rX",
        b"5\r\nhello\n\n",
        b"5\r\nhello0\r\n\r\n",
        b"f" * 16 + b"\r\n",
        b"5;" + b"a" * 300,
        b"5;a\x00\r\n",
        b"0\r\nname: a\nb\r\n\r\n",
        b"0\r\n\n",
        b"0\r\n" + b"name: value\r\n" * 1000,
        b"0\r\nname: " + b"v" * 9000,
    ],
)
def test_a_body_that_is_not_in_chunks_is_refused(sent: bytes, size: int) -> None:
    with pytest.raises(RefusedError):
        _feed(ChunkedBody(), sent, size)


def test_many_small_chunks_are_refused_and_many_large_ones_are_not() -> None:
    body = ChunkedBody()
    body.feed(b"1\r\na\r\n" * 1000)
    with pytest.raises(RefusedError, match="larger chunks"):
        body.feed(b"1\r\na\r\n")
    _feed(ChunkedBody(), b"100\r\n%s\r\n" % (b"a" * 256) * 2000, 65536)
