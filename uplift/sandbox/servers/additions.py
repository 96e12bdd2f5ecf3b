"""What a server adds to what it stores."""

from datetime import UTC, datetime
from typing import Any

from uplift.sandbox.servers.profile import Profile

_CREATED_AT = "https://aidbox.app/ex/createdAt"
_NOTES = "http://healthlake.amazonaws.com/aws-cm/"


def with_additions(
    resource: dict[str, Any], version: str, profile: Profile, request_id: str
) -> dict[str, Any] | None:
    """The resource as it is kept; None where it is kept as it came."""
    meta = resource.get("meta")
    meta = dict(meta) if isinstance(meta, dict) else {}
    match profile.adds:
        case "source" if version != "dstu2":
            meta["source"] = f"{meta.get('source', '')}#{request_id}"
        case "created_at":
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            created = {"url": _CREATED_AT, "valueInstant": now.replace("+00:00", "Z")}
            meta["extension"] = [*meta.get("extension", []), created]
        case "owner":
            meta |= {"project": "sandbox-project", "author": {"reference": "ClientApplication/1"}}
        case "notes" if resource["resourceType"] == "DocumentReference":
            # What its language model read there, for English texts.
            read = {"url": _NOTES, "extension": [{"url": f"{_NOTES}ENTITIES", "valueString": "[]"}]}
            return {**resource, "extension": [*resource.get("extension", []), read]}
        case _:
            return None
    return {**resource, "meta": meta}
