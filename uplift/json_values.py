"""Counts the values of a JSON text before they are built: each is an object in memory. Pure."""

import re
from collections.abc import Iterator

# In steps, so that other threads go on, and so that a text far over the limit costs little.
_STEP_BYTES = 64 * 1024
# Possessive, so that the search keeps no way back: 8 MiB would cost several times that.
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_WHOLE_TEXTS = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)


def has_more_values(body: bytes, limit: int) -> bool:
    """Whether the text holds more values than `limit`. Arrays and objects are values, too.

    Each value follows a comma or the start of an array or object, so these are counted. An empty
    array or object counts twice.
    """
    # Every value takes a byte. The texts are taken out only if they could be what counts.
    if len(body) <= limit or not _exceeds(_steps(body), limit):
        return False
    return _exceeds(_steps_without_texts(body), limit)


def _exceeds(steps: Iterator[bytes], limit: int) -> bool:
    values = 1
    for step in steps:
        values += step.count(b",") + step.count(b"[") + step.count(b"{")
        if values > limit:
            return True
    return False


def _steps(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _STEP_BYTES):
        yield body[start : start + _STEP_BYTES]


def _steps_without_texts(body: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(body):
        whole = _WHOLE_TEXTS.match(body, start, start + _STEP_BYTES)
        end = whole.end() if whole is not None else start
        if end > start:
            yield _TEXT.sub(b"", body[start:end])
        else:
            text = _TEXT.match(body, start)  # longer than a step
            if text is None:
                yield body[start:]  # it never ends, and is no JSON
                return
            end = text.end()
        start = end
