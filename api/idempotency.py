"""The Idempotency-Key header. Source: draft-ietf-httpapi-idempotency-key-header-07, 2.1."""

import re
from collections.abc import Sequence

from fastapi import Request

from uplift.api.callers import Caller
from uplift.api.problems import Problem
from uplift.ledger.idempotency import CallersKey
from uplift.problem_types import ProblemType

_MAX_CHARACTERS = 255
# A String of RFC 9651, 3.3.3. Many clients send it without the quotes.
KEY_PATTERN = r'^("([ !#-\[\]-~]|\\["\\])+"|[!#-\[\]-~]+)$'
"""For OpenAPI: the same as `_QUOTED` and `_BARE`."""
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def idempotency_key(request: Request, caller: Caller) -> CallersKey | None:
    """The caller's key for this request, if there is one.

    Raises a Problem (400) if the header is not one valid key.
    """
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    key = read_key(values)
    if key is None:
        raise Problem(
            ProblemType.INVALID_IDEMPOTENCY_KEY,
            f"Idempotency-Key must be one string of 1 to {_MAX_CHARACTERS} printable ASCII"
            ' characters, such as "8e03978e-40d5-43e8-bc93-6894a57f9324".',
        )
    return CallersKey(caller.credential.id, key)


def read_key(values: Sequence[str]) -> str | None:
    """The key in the values of the header; None if they are not exactly one valid key."""
    if len(values) != 1:
        return None
    value = values[0].strip()
    if quoted := _QUOTED.fullmatch(value):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    else:
        key = value if _BARE.fullmatch(value) else ""
    return key if 0 < len(key) <= _MAX_CHARACTERS else None
