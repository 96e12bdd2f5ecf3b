"""Which uploads are the same record, and whether its content changed. Pure.

Apple: two records are the same when identifier, resourceType and source bundle identifier are
the same (HKClinicalRecord). All of it is keyed with the user's own key: what a hospital calls a
record is health data, and a plain hash of it could be guessed.
"""

import hmac
from typing import Any

import orjson

# Set by the server that stores a resource (https://hl7.org/fhir/resource.html#Meta), so they say
# nothing about whether the content is ours.
_SERVER_ELEMENTS = frozenset({"id", "meta"})


def canonical(resource: Any) -> bytes:
    """The content as bytes in which key order, white space and number spelling do not matter."""
    return orjson.dumps(resource, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def content_digest(key: bytes, resource: dict[str, Any]) -> bytes:
    """A digest of the content under the user's key (32 bytes)."""
    return hmac.digest(key, b"content\0" + canonical(resource), "sha256")


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
    # Length-prefixed, so that no two different tuples read the same.
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(key, b"record\0" + message, "sha256")


def same_content(ours: Any, stored: Any) -> bool:
    """Whether what 1upHealth stored is what we sent, but for what a server sets itself."""
    if not isinstance(ours, dict) or not isinstance(stored, dict):
        return False
    return canonical(_content(ours)) == canonical(_content(stored))


def _content(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name not in _SERVER_ELEMENTS}
