"""What is there of the person who leaves is told apart from all else."""

import base64
from typing import Any

from chaos.leaver import NAME, told_apart
from chaos.records import Version


def resource(name: str, body: bytes, *, deleted: bool = False) -> dict[str, Any]:
    versions = [{"deleted": False, "bytes": base64.b64encode(body).decode()}]
    if deleted:
        versions.append({"deleted": True, "bytes": ""})
    return {"type": "Observation", "id": name, "versions": versions}


def test_what_is_left_of_the_leaver_is_named_and_nobody_elses() -> None:
    others = resource("a", Version("alice", "a", 1).body)
    left = resource("b", Version(NAME, "b", 1).body)
    gone = resource("c", Version(NAME, "c", 1).body, deleted=True)
    assert told_apart([others, left, gone]) == ([others], ["Observation/b"])
    assert told_apart([others, gone]) == ([others], [])
