"""Which uploads are the same record, and whether its content changed. Pure.

Apple: two records are the same when identifier, resourceType and source bundle identifier are
the same (HKClinicalRecord). All of it is keyed with the user's own key: what a hospital calls a
record is health data, and a plain hash of it could be guessed.
"""

import hmac
import re
from typing import Any

import orjson

# Set by the server that stores a resource (https://hl7.org/fhir/resource.html#Meta), so they say
# nothing about whether the content is ours.
_SERVER_ELEMENTS = frozenset({"id", "meta"})

# Of arrays and objects inside each other; orjson writes no more than 254.
_MAX_DEPTH = 200

# What orjson reads and writes as integers; larger ones it reads as floats.
_INTEGERS_FROM, _INTEGERS_TO = -(2.0**63), 2.0**64

_WHOLE = re.compile(rb"\.0[,\]}]")


def canonical(resource: Any) -> bytes:
    """The content as bytes in which key order, white space and number spelling do not matter.

    Raises ValueError if arrays and objects are nested more than 200 deep.
    """
    try:
        content = orjson.dumps(resource, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        content = b""  # nested too deep for it: `_plain` says so
    if content and not _may_hold_whole_floats(content) and _max_depth(content) <= _MAX_DEPTH:
        return content
    return orjson.dumps(_plain(resource, _MAX_DEPTH), option=orjson.OPT_SORT_KEYS)


def _may_hold_whole_floats(content: bytes) -> bool:
    """Whether any number that orjson wrote may be a whole float: 72.0, or from 1e+16.

    Text that looks like one counts as well.
    """
    if b"e+" in content:
        return True
    # The plain search first: it takes a fraction of the other's time.
    return b".0" in content and (_WHOLE.search(content) is not None or content.endswith(b".0"))


def _max_depth(content: bytes) -> int:
    """No less than how deep arrays and objects are nested in it: how many begin."""
    return len(content) - len(content.translate(None, b"[{"))


def _plain(value: Any, depth: int) -> Any:
    """The value with whole numbers as integers: a server in JavaScript stores 72.0 as 72."""
    if isinstance(value, float):
        whole = value.is_integer() and _INTEGERS_FROM <= value < _INTEGERS_TO
        return int(value) if whole else value
    if not isinstance(value, dict | list):
        return value
    if not depth:
        raise ValueError(f"Arrays and objects are nested more than {_MAX_DEPTH} deep.")
    if isinstance(value, dict):
        return {name: _plain(child, depth - 1) for name, child in value.items()}
    return [_plain(child, depth - 1) for child in value]


def content_digest(key: bytes, content: bytes) -> bytes:
    """A digest of `canonical` content under the user's key (32 bytes)."""
    return hmac.digest(key, b"content\0" + content, "sha256")


def record_identity(
    key: bytes,
    *,
    fhir_version: str,
    resource_type: str,
    source: str | None,
    record_id: str | None,
    digest: bytes,
) -> bytes:
    """The identity of a record under the user's key (32 bytes).

    Without a record id a record is its content: `digest` stands in.
    """
    parts = [fhir_version.encode(), resource_type.encode(), (source or "").encode()]
    parts.append(b"id:" + record_id.encode() if record_id else b"content:" + digest)
    return _keyed(key, b"record\0", parts)


def upstream_key(key: bytes, *, fhir_version: str, resource_type: str, resource_id: str) -> bytes:
    """Where a resource of that id will be at 1upHealth, under the user's key (32 bytes).

    Two records with the same one overwrite each other where 1upHealth keeps ids.
    """
    parts = [fhir_version.encode(), resource_type.encode(), resource_id.encode()]
    return _keyed(key, b"upstream\0", parts)


def request_digest(
    key: bytes,
    *,
    fhir_version: str | None,
    source: str | None,
    record_id: str | None,
    body: bytes,
) -> bytes:
    """A digest of a request's labels and of its resource's bytes, under the user's key (32 bytes).

    What is left out and what is empty are the same.
    """
    parts = [(text or "").encode() for text in (fhir_version, source, record_id)]
    return _keyed(key, b"request\0", [*parts, body])


def _keyed(key: bytes, purpose: bytes, parts: list[bytes]) -> bytes:
    # Length-prefixed, so that no two different tuples read the same.
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(key, purpose + message, "sha256")


def same_content(ours: Any, stored: Any) -> bool:
    """Whether what 1upHealth stored is what we sent, but for what a server sets itself."""
    if not isinstance(ours, dict) or not isinstance(stored, dict):
        return False
    try:
        return canonical(_content(ours)) == canonical(_content(stored))
    except ValueError:
        return False  # nested deeper than anything that was accepted


def _content(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name not in _SERVER_ELEMENTS}
