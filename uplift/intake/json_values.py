"""Counts the values of a JSON text before they are built: each is an object in memory. Pure."""

import re

from uplift.errors import UnreadableUpload

# Possessive, so that the search keeps no way back: a text of 8 MiB would cost several times that.
_TEXTS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


def max_values(body: bytes) -> int:
    """At most so many values are in the text: each follows a comma or the start of a container."""
    return 1 + body.count(b",") + body.count(b"[") + body.count(b"{")


def check_values(body: bytes, limit: int) -> None:
    """Raises UnreadableUpload if the text holds more values than `limit`.

    Arrays, objects and what is in them count. Empty arrays and objects may count twice.
    """
    # Every value takes a byte. The texts are taken out only if they could be what counts.
    if len(body) <= limit or max_values(body) <= limit:
        return
    if max_values(_TEXTS.sub(b"", body)) > limit:
        raise UnreadableUpload(
            f"The body has more than {limit} JSON values, the limit of one body"
            " (UPLIFT_MAX_JSON_VALUES). Send less at once."
        )
