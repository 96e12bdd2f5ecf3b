"""A head has one meaning, or it is refused."""

import pytest

from uplift.api.request_heads import RefusedError, Why, read_head


def _head(
    *lines: str, first: str = "POST /v1/uploads HTTP/1.1", host: str = "Host: uplift"
) -> bytes:
    return "\r\n".join([first, *([host] if host else []), *lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ([], 0),
        (["Content-Length: 12"], 12),
        (["content-length:0012"], 12),
        (["Content-Length: 12 "], 12),
        (["Transfer-Encoding: chunked"], None),
        (["TRANSFER-ENCODING:\tChunked "], None),
        (["X-Name: caf\xe9"], 0),
    ],
)
def test_a_head_with_one_meaning_says_how_long_its_body_is(
    lines: list[str], length: int | None
) -> None:
    head = _head(*lines)
    found = read_head(head)
    assert found.length == length
    assert found.data == head


def test_http_1_0_cannot_expect_anything() -> None:
    first = "POST / HTTP/1.0"
    assert read_head(_head("Expect: 200-maybe", first=first)).data == _head(first=first)


def test_a_head_that_expects_an_answer_before_its_body_ends_its_connection() -> None:
    assert read_head(_head("Expect: 100-Continue")).data == _head(
        "Expect: 100-Continue", "connection: close"
    )


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"],
        ["connection: upgrade", "UPGRADE: websocket"],
        ["Upgrade: h2c", "Upgrade: websocket", "Connection: keep-alive", "Connection: Upgrade"],
        ["Upgrade : h2c".replace(" :", ":"), "Connection:upgrade"],
        ["Upgrade: TLS/1.2"],
    ],
)
def test_what_asks_for_another_protocol_is_taken_out(lines: list[str]) -> None:
    found = read_head(_head(*lines, "Content-Length: 5", "X-Kept: Upgrade"))
    assert found.length == 5
    rest = found.data.replace(b"X-Kept: Upgrade", b"").lower()
    assert b"upgrade" not in rest
    assert b"http2-settings" not in rest
    assert b"Content-Length: 5\r\n" in found.data
    assert found.data.endswith(b"\r\n\r\n")


def test_other_tokens_of_connection_stay() -> None:
    found = read_head(_head("Connection: close, Upgrade", "Upgrade: h2c"))
    assert b"connection: close\r\n" in found.data


@pytest.mark.parametrize(
    ("target", "read"),
    [
        ("http://other.example/v1/uploads?user=a", "/v1/uploads?user=a"),
        ("HTTPS://other.example", "/"),
        ("http://other.example?user=a", "/?user=a"),
    ],
)
def test_a_proxys_absolute_address_is_read_as_its_path(target: str, read: str) -> None:
    found = read_head(_head(first=f"GET {target} HTTP/1.1"))
    assert found.data.startswith(f"GET {read} HTTP/1.1\r\n".encode())


_REFUSED: list[tuple[bytes, Why, int]] = [
    (_head(host=""), Why.HOST, 400),
    (_head("Host: uplift"), Why.HOST, 400),
    (_head("host: other", first="GET / HTTP/1.0"), Why.HOST, 400),
    (_head(host="Host: a b"), Why.HOST, 400),
    (_head(host="Host: user@a"), Why.HOST, 400),
    (_head(host="Host: a/b"), Why.HOST, 400),
    (_head("Transfer-Encoding: gzip, chunked"), Why.CODING, 501),
    (_head("Transfer-Encoding: gzip"), Why.CODING, 501),
    (_head("Transfer-Encoding: identity"), Why.CODING, 501),
    (_head("Transfer-Encoding: xchunked"), Why.CODING, 501),
    (_head("Transfer-Encoding: chunked;q=1"), Why.CODING, 501),
    (_head("Transfer-Encoding:"), Why.CODING, 501),
    (_head("Transfer-Encoding: chunked, chunked"), Why.FRAMING, 400),
    (_head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), Why.FRAMING, 400),
    (_head("Transfer-Encoding: chunked", "Content-Length: 5"), Why.FRAMING, 400),
    (_head("Transfer-Encoding: chunked", first="POST / HTTP/1.0"), Why.FRAMING, 400),
    (_head("Content-Length: 5", "Content-Length: 5"), Why.FRAMING, 400),
    (_head("Content-Length: 5, 5"), Why.FRAMING, 400),
    (_head("Content-Length: +5"), Why.FRAMING, 400),
    (_head("Content-Length: -5"), Why.FRAMING, 400),
    (_head("Content-Length: 0x5"), Why.FRAMING, 400),
    (_head("Content-Length: 5_0"), Why.FRAMING, 400),
    (_head("Content-Length: 5 0"), Why.FRAMING, 400),
    (_head("Content-Length:"), Why.FRAMING, 400),
    (_head("Content-Length: " + "9" * 19), Why.FRAMING, 400),
    (_head("Content-Length : 5"), Why.MALFORMED, 400),
    (_head(" Content-Length: 5"), Why.MALFORMED, 400),
    (_head("X-Folded: a", "\tb"), Why.MALFORMED, 400),
    (_head("X-Name"), Why.MALFORMED, 400),
    (_head(": value"), Why.MALFORMED, 400),
    (_head("X-Name: a\x00b"), Why.MALFORMED, 400),
    (_head("X-Name: a\x0bb"), Why.MALFORMED, 400),
    (_head("X-Name: a\nContent-Length: 5"), Why.MALFORMED, 400),
    (_head("X-Name: a\rContent-Length: 5"), Why.MALFORMED, 400),
    (_head("X-Name: a\n\r\nX: b"), Why.MALFORMED, 400),
    (_head("Connection\x80: x"), Why.MALFORMED, 400),
    (_head(first="GET  / HTTP/1.1"), Why.MALFORMED, 400),
    (_head(first="GET /a b HTTP/1.1"), Why.MALFORMED, 400),
    (_head(first="GET /\xe9 HTTP/1.1"), Why.MALFORMED, 400),
    (_head(first="GET /"), Why.MALFORMED, 400),
    (_head(first="GET / HTTP/1.1 "), Why.MALFORMED, 400),
    (_head(first="GET / http/1.1"), Why.MALFORMED, 400),
    (_head(first="GET /#a HTTP/1.1"), Why.MALFORMED, 400),
    (_head(first="GET * HTTP/1.1"), Why.MALFORMED, 400),
    (_head(first="GET uplift/v1 HTTP/1.1"), Why.MALFORMED, 400),
    (_head(first="GET ftp://a/ HTTP/1.1"), Why.MALFORMED, 400),
    (b"PRI * HTTP/2.0\r\n\r\n", Why.VERSION, 505),
    (_head(first="GET / HTTP/1.2"), Why.VERSION, 505),
    (_head(first="CONNECT other:443 HTTP/1.1"), Why.METHOD, 501),
    (_head(first="get / HTTP/1.1"), Why.METHOD, 501),
    (_head(first="PROPFIND / HTTP/1.1"), Why.METHOD, 501),
    (_head("Expect: 200-maybe"), Why.EXPECTATION, 417),
    (_head("Authorization: Bearer a", "authorization: Bearer b"), Why.MALFORMED, 400),
    (_head(*["a:"] * 100), Why.TOO_LARGE, 431),
]


@pytest.mark.parametrize(("head", "why", "status"), _REFUSED, ids=lambda each: repr(each)[:70])
def test_a_head_with_two_meanings_or_none_is_refused(head: bytes, why: Why, status: int) -> None:
    with pytest.raises(RefusedError) as refused:
        read_head(head)
    assert (refused.value.why, refused.value.kind.status) == (why, status)


def test_http_1_0_needs_no_host() -> None:
    head = _head(host="", first="GET /healthz HTTP/1.0")
    assert read_head(head).data == head
