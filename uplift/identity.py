"""Decides which uploads are the same record, and whether its content changed. Pure.

Two records are the same if identifier, resourceType and source bundle identifier are the same
(Apple, HKClinicalRecord). Every digest is keyed with the user's own key: a hospital's name for a
record is health data, and one could guess it from a hash without a key.
"""

import hmac
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import orjson

# Of `meta`. Servers set these, some of them at each download. Profiles, tags and security labels
# are content.
_VERSION_METADATA = frozenset({"versionId", "lastUpdated"})

# Of arrays and objects inside each other. orjson writes up to 254.
_MAX_DEPTH = 200

# orjson reads and writes these as integers. It reads larger ones as floats.
_INTEGERS_FROM, _INTEGERS_TO = -(2.0**63), 2.0**64

_WHOLE = re.compile(rb"\.0[,\]}]")


def canonical(resource: Any) -> bytes:
    """The content as bytes in which key order, white space and number spelling do not matter.

    Raises ValueError if arrays and objects are nested more than 200 deep.
    """
    try:
        content = orjson.dumps(resource, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        content = b""  # nested too deep for orjson: `_plain` raises the error
    if content and not _may_hold_whole_floats(content) and _max_depth(content) <= _MAX_DEPTH:
        return content
    return orjson.dumps(_plain(resource, _MAX_DEPTH), option=orjson.OPT_SORT_KEYS)


def without_version_metadata(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource without meta.versionId and meta.lastUpdated; itself if it has neither.

    What is downloaded again every day is then equal.
    """
    meta = resource.get("meta")
    if not isinstance(meta, dict) or _VERSION_METADATA.isdisjoint(meta):
        return resource
    left = {name: value for name, value in meta.items() if name not in _VERSION_METADATA}
    rest = {name: value for name, value in resource.items() if name != "meta"}
    return {**rest, "meta": left} if left else rest


def _may_hold_whole_floats(content: bytes) -> bool:
    """Whether the content may contain a whole number that orjson wrote as a float: 72.0 or 1e+16.

    A text that looks like such a number counts too.
    """
    if b"e+" in content:
        return True
    # The search without a pattern comes first, because it is many times faster.
    return b".0" in content and (_WHOLE.search(content) is not None or content.endswith(b".0"))


def _max_depth(content: bytes) -> int:
    """An upper limit for how deep arrays and objects are nested: the number of their beginnings."""
    return len(content) - len(content.translate(None, b"[{"))


def _plain(value: Any, depth: int) -> Any:
    """The value with all whole numbers as integers: a server in JavaScript stores 72.0 as 72."""
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

    A record without a record id is known by its content's `digest`.
    """
    parts = [fhir_version.encode(), resource_type.encode(), (source or "").encode()]
    parts.append(b"id:" + record_id.encode() if record_id else b"content:" + digest)
    return _keyed(key, b"record\0", parts)


def upstream_key(key: bytes, *, fhir_version: str, resource_type: str, resource_id: str) -> bytes:
    """A digest of where a resource with that id will be at 1upHealth (32 bytes).

    If 1upHealth keeps ids, two records with the same digest overwrite each other.
    """
    parts = [fhir_version.encode(), resource_type.encode(), resource_id.encode()]
    return _keyed(key, b"upstream\0", parts)


def receipt_key(key: bytes, *, fhir_version: str, resource_type: str, resource_id: str) -> bytes:
    """A digest of what 1upHealth calls a resource that it stored (32 bytes).

    Two records with the same digest are one resource there.
    """
    parts = [fhir_version.encode(), resource_type.encode(), resource_id.encode()]
    return _keyed(key, b"receipt\0", parts)


def server_of(source_url: str | None, resource_type: str) -> str | None:
    """The FHIR server in the URL of a record: the URL less its `/Type/id`; None if it names none.

    The path stays, because one host may serve many hospitals.
    """
    try:
        url = urlsplit(source_url or "")
        host, port = (url.hostname or "").rstrip("."), url.port
    except ValueError:
        return None
    segments = url.path.split("/")
    types = [place for place, name in enumerate(segments[:-1]) if name == resource_type]
    types = [place for place in types if segments[place + 1]]
    if url.scheme not in _PORTS or not host or not types:
        return None
    shown = f":{port}" if port not in (None, _PORTS[url.scheme]) else ""
    return f"{url.scheme}://{host}{shown}{'/'.join(segments[: types[-1]])}"


_PORTS = {"http": 80, "https": 443}


def source_key(key: bytes, source: str) -> bytes:
    """A digest of a source's label under the user's key (32 bytes)."""
    return _keyed(key, b"source\0", [source.encode()])


def server_key(key: bytes, server: str) -> bytes:
    """A digest of `server_of` a record under the user's key (32 bytes)."""
    return _keyed(key, b"server\0", [server.encode()])


def request_digest(key: bytes, *, labels: Iterable[str | None], body: bytes) -> bytes:
    """A digest of a request's labels and of its resource's bytes, under the user's key (32 bytes).

    An omitted label and an empty one are the same.
    """
    return _keyed(key, b"request\0", [*((text or "").encode() for text in labels), body])


def _keyed(key: bytes, purpose: bytes, parts: list[bytes]) -> bytes:
    # Each part has its length in front. So two different lists never give the same message.
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(key, purpose + message, "sha256")
