"""What a server holds where Uplift puts records, told in the devices' own versions.

Uplift rewrites records for it: the id, references, an identifier. So bytes cannot be compared. The
rest of a record says which version it is.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from chaos.evidence import Stored
from chaos.records import Version

_REWRITTEN = ("id", "meta", "identifier", "subject")
_PATIENT = "Patient"


@dataclass(frozen=True, slots=True)
class Held:
    """What the destination holds.

    `sent` leads from the digest of what Uplift sent to that of what a device sent; it is empty
    where they are the same. `patients` has the number of different contents of each Patient.
    """

    stored: list[Stored] = field(default_factory=list)
    sent: Mapping[str, str] = field(default_factory=dict)
    patients: list[int] = field(default_factory=list)


def held_by(resources: Iterable[Mapping[str, Any]], versions: Iterable[Version]) -> Held:
    """Of the resources as the sandbox lists them. What no device sent keeps its own digest, and is
    nobody's."""
    known = {_rest(orjson.loads(version.body)): version for version in versions}
    stored: list[Stored] = []
    sent: dict[str, str] = {}
    patients: list[int] = []
    for resource in resources:
        if resource["type"] == _PATIENT:
            patients.append(len({one["sha256"] for one in resource["versions"]}))
            continue
        for one in resource["versions"]:
            version = known.get(_rest(orjson.loads(base64.b64decode(one["bytes"]))))
            if version is not None:
                sent[one["sha256"]] = version.sha256
            stored.append(
                Stored(
                    user=version.user if version else "",
                    resource_id=resource["id"],
                    sha256=version.sha256 if version else one["sha256"],
                    at=datetime.fromisoformat(one["last_updated"]).timestamp(),
                    copy=one["copy"],
                )
            )
    return Held(stored, sent, patients)


def _rest(resource: dict[str, Any]) -> bytes:
    rest = {name: value for name, value in resource.items() if name not in _REWRITTEN}
    return orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)
