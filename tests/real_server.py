"""Pushes the example export to a FHIR server that nobody here wrote. Between them is a proxy that
spoils every third answer. tests/held.py reads what the server holds then."""

import asyncio
import itertools
import json
import threading
import time
import zipfile
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
from uplift.sandbox.export.make_export import Manifest, ManifestRecord, write_export

SETTLE = 3.0
"""Seconds: a late commit of the proxy comes before them."""
LATE = 1.0
PROCESSES = ("api", "worker", "bulk", "beat")
"""Those of a running system here."""

_RELEASES = {"dstu2": "1.0.2", "r4": "4.0.1"}
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
_READY_SECONDS = 60.0
CHANGED = "en-US"
"""The language of every record of the changed export."""

Resource = dict[str, Any]


class Uplift:
    """The running system, whose users' records go to one server."""

    def __init__(self, system: System) -> None:
        self.system = system
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
        sending = threading.Thread(target=self._send_until_refused, args=(user, fhir_version))
        sending.start()
        time.sleep(2)  # some of it is under way
        self.begin_to_erase(user)
        for name in ("worker", "beat"):
            self.system.processes.kill(name)
            self.system.restart(name)
        sending.join()
        self.until_erased(user)

    def begin_to_erase(self, user: str) -> None:
        """Have the user erased at their destinations too, and do not wait for it."""
        url = f"/v1/users/{user}"
        begun = self.api.delete(url, params={"upstream": "delete", "wait": 0})
        assert begun.status_code == httpx.codes.ACCEPTED, begun.text

    def until_erased(self, user: str) -> None:
        """Wait until there is no such user any more."""
        ends = time.monotonic() + _ERASE_SECONDS
        while (found := self.api.get(f"/v1/users/{user}")).status_code != httpx.codes.NOT_FOUND:
            assert time.monotonic() < ends, found.text
            time.sleep(0.5)

    def _send_until_refused(self, user: str, fhir_version: str) -> None:
        params = {"user": user, "fhirVersion": fhir_version.upper(), "source": "flow"}
        for number in itertools.count():
            body = pulse(f"flow-{number}", number)
            if not self.api.post("/v1/uploads", params=params, json=body).is_success:
                return
            time.sleep(0.05)

    def until_ready(self) -> None:
        """Wait until the API answers."""
        ends = time.monotonic() + _READY_SECONDS
        while True:
            try:
                if self.api.get("/readyz").is_success:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < ends, "the API does not answer"
            time.sleep(0.1)

    def push(self, export: Path, user: str) -> PushResult:
        """Push an export and wait for the outcome of each record."""

        async def pushed() -> PushResult:
            async with ApiClient(self.system.api_url, self._key, connections=4) as client:
                return await push_records(client, export, user=user, wait_seconds=_PUSH_SECONDS)

        self.api.post("/v1/users", json={"appUserId": user}).raise_for_status()
        return asyncio.run(pushed())


def pulse(record_id: str, value: int) -> Resource:
    """An Observation of any FHIR version."""
    return {
        "resourceType": "Observation",
        "id": record_id,
        "status": "final",
        "code": {"text": "pulse"},
        "valueQuantity": {"value": value},
    }


@contextmanager
def run_uplift(folder: Path, settings: Mapping[str, str]) -> Iterator[Uplift]:
    """The whole system with one destination, which these settings describe."""
    with System(folder, {**_BRISK, **settings}, processes=PROCESSES, any_port=True) as system:
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
    return json.dumps({**resource, "language": CHANGED}).encode()


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
