"""The Idempotency-Key header. Source: draft-ietf-httpapi-idempotency-key-header-07, 2.1."""

import re

from fastapi import Request

from uplift.api.callers import Caller
from uplift.api.problems import TITLES, Problem
from uplift.ledger.idempotency import CallersKey

_MAX = 255
# A String of RFC 9651, 3.3.3; many clients send it without the quotes.
KEY_PATTERN = r'^("([ !#-\[\]-~]|\\["\\])+"|[!#-\[\]-~]+)$'
"""For OpenAPI: what `_QUOTED` and `_BARE` say."""
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def idempotency_key(request: Request, caller: Caller) -> CallersKey | None:
    """The caller's key for this request, if it has one. Raises a Problem (400) for a bad one."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    key = _read(values[0].strip()) if len(values) == 1 else None
    if not key or len(key) > _MAX:
        raise Problem(
            400,
            TITLES[400],
            f"Idempotency-Key is not one string of 1 to {_MAX} printable ASCII characters,"
            ' such as "8e03978e-40d5-43e8-bc93-6894a57f9324".',
        )
    return CallersKey(caller.credential.id, key)


def _read(value: str) -> str | None:
    if quoted := _QUOTED.fullmatch(value):
        return re.sub(r"\\(.)", r"\1", quoted[1])
    return value if _BARE.fullmatch(value) else None
