"""Pushes the example export to a FHIR server that nobody here wrote, and reads what it holds.

Between them is a proxy that spoils every third answer.
"""

import asyncio
import itertools
import json
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from uplift.cli.local.system import System
from uplift.cli.local.up import add_api_key
from uplift.cli.push.client import ApiClient
from uplift.cli.push.push import push_records
from uplift.cli.push.result import PushResult, ResponseKind
from uplift.destinations.requests import USER_SYSTEM
from uplift.sandbox.export.make_export import Manifest, ManifestRecord, write_export

SETTLE = 3.0
"""Seconds: a late commit of the proxy comes before them."""
LATE = 1.0

_RELEASES = {"dstu2": "1.0.2", "r4": "4.0.1"}
_SOURCE_SYSTEM = "urn:uplift:source:"
_PROCESSES = ("api", "worker", "bulk", "beat")
_BRISK = {
    "UPLIFT_ATTEMPT_SECONDS": "10",
    "UPLIFT_LEASE_SECONDS": "20",
    "UPLIFT_SETTLE_SECONDS": f"{SETTLE:g}",
    "UPLIFT_SWEEP_SECONDS": "0.5",
    "UPLIFT_BACKOFF_FIRST_SECONDS": "0.5",
    "UPLIFT_MAX_BACKOFF_SECONDS": "2",
    "UPLIFT_MAX_IN_FLIGHT": "8",
}
_PUSH_SECONDS = 400.0
_ERASE_SECONDS = 300.0
_CHANGED = "en-US"

Resource = dict[str, Any]


class Uplift:
    """The running system, whose users' records go to one server."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._key = add_api_key(system)
        self.api = httpx.Client(
            base_url=system.api_url,
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=60,
            trust_env=False,
        )

    def erase_upstream(self, user: str, fhir_version: str) -> None:
        """Erase the user at their destinations too, while their app sends and processes are killed,
        until they are gone here."""
        url = f"/v1/users/{user}"
        sending = threading.Thread(target=self._send_until_refused, args=(user, fhir_version))
        sending.start()
        time.sleep(2)  # some of it is under way
        begun = self.api.delete(url, params={"upstream": "delete", "wait": 0})
        assert begun.status_code == httpx.codes.ACCEPTED, begun.text
        for name in ("worker", "beat"):
            self._system.processes.kill(name)
            self._system.restart(name)
        sending.join()
        ends = time.monotonic() + _ERASE_SECONDS
        while (found := self.api.get(url)).status_code != httpx.codes.NOT_FOUND:
            assert time.monotonic() < ends, found.text
            time.sleep(0.5)

    def _send_until_refused(self, user: str, fhir_version: str) -> None:
        params = {"user": user, "fhirVersion": fhir_version.upper(), "source": "flow"}
        for number in itertools.count():
            body = {
                "resourceType": "Observation",
                "id": f"flow-{number}",
                "status": "final",
                "code": {"text": "pulse"},
                "valueQuantity": {"value": number},
            }
            if not self.api.post("/v1/uploads", params=params, json=body).is_success:
                return
            time.sleep(0.05)

    def push(self, export: Path, user: str) -> PushResult:
        """Push an export and wait for the outcome of each record."""

        async def pushed() -> PushResult:
            async with ApiClient(self._system.api_url, self._key, connections=4) as client:
                return await push_records(client, export, user=user, wait_seconds=_PUSH_SECONDS)

        self.api.post("/v1/users", json={"appUserId": user}).raise_for_status()
        return asyncio.run(pushed())


@contextmanager
def run_uplift(folder: Path, settings: Mapping[str, str]) -> Iterator[Uplift]:
    """The whole system with one destination, which these settings describe."""
    with System(folder, {**_BRISK, **settings}, processes=_PROCESSES, any_port=True) as system:
        uplift = Uplift(system)
        yield uplift
        uplift.api.close()


@dataclass(frozen=True)
class Exports:
    """The example export, and the same one with every record changed."""

    first: Path
    changed: Path
    manifest: Manifest

    def valid(self, fhir_version: str) -> tuple[ManifestRecord, ...]:
        """Those that Uplift relays of one FHIR version: `dstu2` or `r4`."""
        release = _RELEASES[fhir_version]
        return tuple(each for each in self.manifest.valid if each.fhir_version == release)

    def other_versions(self, fhir_version: str) -> int:
        """How many are of another version, valid or not."""
        release = _RELEASES[fhir_version]
        return sum(each.fhir_version != release for each in self.manifest.records)


def write_exports(folder: Path) -> Exports:
    """Both, in a folder."""
    first, changed = folder / "first.zip", folder / "changed.zip"
    manifest = write_export(first)
    with zipfile.ZipFile(first) as read, zipfile.ZipFile(changed, "w") as written:
        for name in read.namelist():
            content = read.read(name)
            written.writestr(name, _changed(content) if name.endswith(".json") else content)
    return Exports(first, changed, manifest)


def _changed(content: bytes) -> bytes:
    """Another language: the one element that every type has, and no rule of Uplift's touches."""
    try:
        resource = json.loads(content)
    except ValueError:
        return content
    return json.dumps({**resource, "language": _CHANGED}).encode()


def push_both(
    uplift: Uplift,
    exports: Exports,
    fhir_version: str,
    *,
    between: Callable[[], object] = lambda: None,
) -> None:
    """Push the export, and then the changed one. Each record of the version must be delivered."""
    for export in (exports.first, exports.changed):
        if export is exports.changed:
            between()
        totals = uplift.push(export, "alice").totals()
        assert totals[ResponseKind.DELIVERED] == len(exports.valid(fhir_version))
        assert totals[ResponseKind.VERSION_NOT_TAKEN] == exports.other_versions(fhir_version)


def assert_each_is_there_once(
    base: str, exports: Exports, fhir_version: str, headers: Mapping[str, str] | None = None
) -> None:
    """Each record in its last version, and the one Patient that they are about."""
    relayed = exports.valid(fhir_version)
    types = {each.resource_type for each in relayed} | {"Patient"}
    found = held_by(base, types, headers or {})
    (person,) = [each for each in found if is_person(each)]
    records = [each for each in found if original_names(each)]
    names = {f"{each.resource_type}/{each.record_id}" for each in relayed}
    assert Counter(name for each in records for name in original_names(each)) == dict.fromkeys(
        names, 1
    )
    assert len(records) == len(relayed)
    assert all(each.get("language") == _CHANGED for each in records)
    about = {
        reference
        for each in records
        for reference in literal_references(each)
        if reference.startswith("Patient/")
    }
    assert about == {f"Patient/{person['id']}"}


def assert_nothing_is_there(
    base: str, ids: Mapping[str, set[str]], headers: Mapping[str, str] | None = None
) -> None:
    """No search finds anything of these types, and no read finds any of these ids."""
    assert held_by(base, set(ids), headers or {}) == []
    with httpx.Client(
        headers={"Accept": "application/fhir+json", **(headers or {})}, timeout=60, trust_env=False
    ) as client:
        answers = {
            f"{type_}/{id_}": client.get(f"{base}/{type_}/{id_}").status_code
            for type_, those in ids.items()
            for id_ in those
        }
    assert set(answers.values()) <= {404, 410}, answers


def ids_at(
    base: str, exports: Exports, fhir_version: str, headers: Mapping[str, str] | None = None
) -> dict[str, set[str]]:
    """The ids that the server has, by their types: of the export's types and of Patient."""
    types = {each.resource_type for each in exports.valid(fhir_version)} | {"Patient"}
    found: dict[str, set[str]] = {type_: set() for type_ in types}
    for each in held_by(base, types, headers or {}):
        found[each["resourceType"]].add(each["id"])
    return found


def held_by(base: str, types: set[str], headers: Mapping[str, str]) -> list[Resource]:
    """Every resource of these types at a server, past every page and every cache."""
    found: list[Resource] = []
    with httpx.Client(
        headers={"Cache-Control": "no-cache", "Accept": "application/fhir+json", **headers},
        timeout=60,
        trust_env=False,
    ) as client:
        for type_ in sorted(types):
            page: str | None = f"{base}/{type_}?_count=200"
            while page is not None:
                bundle = client.get(page).raise_for_status().json()
                found += [entry["resource"] for entry in bundle.get("entry", ())]
                links = {link["relation"]: link["url"] for link in bundle["link"]}
                page = links.get("next")
    return found


def original_names(resource: Resource) -> list[str]:
    """`Type/id` of the record as the hospital names it, as often as the resource carries it."""
    identifiers = resource.get("identifier", [])
    named = identifiers if isinstance(identifiers, list) else [identifiers]
    tags = resource.get("meta", {}).get("tag", [])
    return [
        each.get("value") or each["code"]
        for each in [*named, *tags]
        if str(each.get("system", "")).startswith(_SOURCE_SYSTEM)
    ]


def is_person(resource: Resource) -> bool:
    """Whether it is the Patient that stands for a user."""
    return resource["resourceType"] == "Patient" and any(
        each.get("system") == USER_SYSTEM for each in resource.get("identifier", ())
    )


def literal_references(value: Any) -> Iterator[str]:
    """Every reference in a resource that a server resolves."""
    if isinstance(value, list):
        for each in value:
            yield from literal_references(each)
    elif isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for each in value.values():
            yield from literal_references(each)
