"""Lines out of chunks: the same lines however the stream is cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift.intake.ndjson import Line, LineReader


def lines(*chunks: bytes, limit: int = 100) -> list[tuple[int, bytes | None]]:
    """What a reader gives of these chunks and the end."""
    reader = LineReader(limit)
    found: list[Line] = []
    for chunk in chunks:
        found += reader.feed(chunk)
    found += reader.end()
    return [(line.number, line.text) for line in found]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"", []),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"a\n\n \t\r\nb", [(1, b"a"), (4, b"b")]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", [(1, b"a"), (2, b"\xef\xbb\xbfb")]),
        (b"\xef\xbb\xbf\na", [(2, b"a")]),
        (b"a\rb\n", [(1, b"a\rb")]),
        (b"\n\n\n", []),
        (b" a \n", [(1, b" a ")]),
    ],
)
def test_lines_end_at_newlines_and_blank_ones_only_count(
    stream: bytes, expected: list[tuple[int, bytes]]
) -> None:
    assert lines(stream) == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_line_may_have_as_many_bytes_as_the_cap_and_no_more(start: bytes, end: bytes) -> None:
    assert lines(start + b"x" * 10 + end, limit=10) == [(1, b"x" * 10)]
    assert lines(start + b"x" * 11 + end, limit=10) == [(1, None)]


def test_a_line_that_is_too_long_costs_neither_its_neighbours_nor_memory() -> None:
    reader = LineReader(10)
    assert [line.text for line in reader.feed(b"first\n")] == [b"first"]
    for _ in range(1000):
        assert list(reader.feed(b"x" * 1000)) == []
        assert reader.buffered <= 20
    assert list(reader.feed(b"y\nthird")) == [Line(2, None)]
    assert list(reader.end()) == [Line(3, b"third")]


@given(
    stream=st.lists(
        st.sampled_from([b"a", b"bb", b"x" * 12, b"\n", b"\r\n", b"\r", b" ", b"\xef\xbb\xbf"]),
        max_size=30,
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 200), max_size=10),
)
def test_the_lines_are_the_same_however_the_stream_is_cut(stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(places)]
    assert lines(*chunks, limit=10) == lines(stream, limit=10)


@given(st.lists(st.binary(min_size=1, max_size=20).map(lambda b: b.translate(None, b"\r\n"))))
def test_what_was_written_as_lines_is_read_as_these_lines(texts: list[bytes]) -> None:
    expected = [text for text in texts if text.strip()]
    read = lines(b"\xef\xbb\xbf" + b"".join(text + b"\n" for text in texts))
    assert [text for _, text in read] == expected
