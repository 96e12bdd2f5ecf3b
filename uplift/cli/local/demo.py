"""`uplift demo`: sends a synthetic person's records through the whole system and compares."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from zipfile import ZipFile

import httpx
import orjson
import typer

from uplift.cli.environment import data_dir, remove_environment, write_environment
from uplift.cli.local.embedded.account import NOBODY
from uplift.cli.local.embedded.lock import FolderLock
from uplift.cli.local.processes import interrupted_by_signals
from uplift.cli.local.system import Like, System, make_folder, name_of
from uplift.cli.local.up import (
    LikeOption,
    add_api_key,
    console,
    print_addresses,
    say,
    tended,
)
from uplift.cli.push.client import ApiClient
from uplift.cli.push.progress import ConsoleProgress
from uplift.cli.push.push import push_records
from uplift.cli.push.report import print_report
from uplift.cli.push.result import PushResult, ResponseKind
from uplift.cli.session import read_settings
from uplift.destinations.destination import Subject
from uplift.destinations.presets import PRESETS
from uplift.errors import UpliftError
from uplift.fhir.versions import FhirVersion
from uplift.sandbox.export.make_export import Manifest, ManifestRecord, write_export
from uplift.sandbox.servers.limits import is_within
from uplift.sandbox.servers.profile import Profile
from uplift.sandbox.servers.profiles import PROFILES

_USER = "demo-person"
_OUTCOME_SECONDS = 120.0

# If a worker dies during the demo, others must continue within seconds, not minutes.
_BRISK = {
    "UPLIFT_ATTEMPT_SECONDS": "5",
    "UPLIFT_LEASE_SECONDS": "10",
    "UPLIFT_SETTLE_SECONDS": "2",
    "UPLIFT_SWEEP_SECONDS": "1",
    "UPLIFT_BACKOFF_FIRST_SECONDS": "1",
    "UPLIFT_MAX_BACKOFF_SECONDS": "10",
    "UPLIFT_ONEUP_KEEPS_IDS": "true",
}


def demo(like: LikeOption = "oneup") -> None:
    """Send a synthetic person's records through the whole system, check what arrives, stop.

    Exit code 0 if everything arrived as it must, 1 if not, 2 if the system does not run.
    """
    read_settings()
    raise typer.Exit(_run_demo(data_dir() / "demo", like))


def _run_demo(folder: Path, like: Like) -> int:
    """Run it in an empty folder of its own. All its records are invented, so `nobody` will do."""
    lock = FolderLock(folder.parent / "demo.lock")
    try:
        make_folder(folder.parent)
        lock.acquire()
        shutil.rmtree(folder, ignore_errors=True)
        with (
            interrupted_by_signals(),
            System(folder, _BRISK, say=say, like=like, account=NOBODY) as system,
        ):
            write_environment(folder, system.environment)
            try:
                return _show(system, folder, like)
            finally:
                remove_environment(folder)
    except UpliftError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    finally:
        lock.release()


def _show(system: System, folder: Path, like: Like) -> int:
    export = folder / "apple-health-export.zip"
    manifest = write_export(export)
    console.print(
        f"\nA synthetic person's export, {export}: {len(manifest.records)} records,"
        f" {len(manifest.broken)} of them broken on purpose,"
        f" {len(manifest.missing)} listed without a file.",
        markup=False,
        soft_wrap=True,
    )
    key = add_api_key(system)
    headers = {"Authorization": f"Bearer {key}"}
    made = httpx.post(
        f"{system.api_url}/v1/users",
        json={"appUserId": _USER},
        headers=headers,
        timeout=30,
        trust_env=False,  # no proxy of the environment is asked about this machine
    )
    if made.is_error:
        raise UpliftError(f"The demo cannot create its user: {made.json()['detail']}")
    with tended(system):
        result = asyncio.run(_push(system.api_url, key, export))
    console.print()
    print_report(console, result)
    assert system.sandbox_url is not None  # noqa: S101  the demo has no other upstream
    url = f"{system.sandbox_url}/_sandbox/counts"
    headers = {"Authorization": f"Bearer {system.sandbox_token}"}
    counts = httpx.get(url, headers=headers, timeout=30, trust_env=False).json()["total"]
    expected = Expected.of(manifest, export, like)
    wrong = expected.differences(result, counts)
    console.print()
    print_addresses(system, None)
    for line in wrong:
        console.print(line, style="red")
    if not wrong:
        console.print(
            f"\nAll is correct: the simulated {name_of(like)} has {counts['resources']} resources,"
            f" none of them twice; each of the {len(expected.broken)} broken ones was rejected,"
            f" with the element at fault{expected.not_taken()}.",
            style="green",
        )
    console.print("Stopping. `uplift up` (or `make up`) keeps the system running.")
    return 1 if wrong else 0


async def _push(api_url: str, key: str, export: Path) -> PushResult:
    async with ApiClient(api_url, key, connections=4) as client:
        with ConsoleProgress(console) as progress:
            return await push_records(
                client, export, user=_USER, wait_seconds=_OUTCOME_SECONDS, progress=progress
            )


@dataclass(frozen=True, slots=True)
class Expected:
    """What the export must come to at a server.

    `patients` are the resources that Uplift makes beside the records: there is no Patient in
    HealthKit. `refused` is how many records are beyond the server's limits, and `others` how many
    are of FHIR versions that it does not take.
    """

    delivered: int
    refused: int
    broken: list[ManifestRecord]
    missing: int
    others: int
    patients: int

    @classmethod
    def of(cls, manifest: Manifest, export: Path, like: Like) -> Self:
        """What it must come to at such a server."""
        if like == "oneup":
            taken, patients, profile = frozenset(FhirVersion), 0, None
        else:
            profile = PROFILES[like]
            taken = frozenset(FhirVersion(each.upper()) for each in profile.versions)
            brought = {FhirVersion.parse(each.fhir_version) for each in manifest.valid}
            makes = PRESETS[like].subject is Subject.PATIENT
            patients = len(brought & taken) if makes else 0
        valid = [each for each in manifest.valid if _is_of(each, taken)]
        broken = [each for each in manifest.broken if _is_of(each, taken)]
        others = len(manifest.valid) + len(manifest.broken) - len(valid) - len(broken)
        refused = 0 if profile is None else _beyond(profile, valid, export)
        delivered = len(valid) - refused
        return cls(delivered, refused, broken, len(manifest.missing), others, patients)

    def not_taken(self) -> str:
        """What became of those that it does not take, for the last line."""
        said = f"; {self.refused} are beyond its limits" if self.refused else ""
        if self.others:
            said += f"; {self.others} are of FHIR versions that it does not take"
        return said

    def differences(self, result: PushResult, counts: dict[str, int]) -> list[str]:
        """Each difference between this, the result and the numbers of the sandbox."""
        stored = self.delivered + self.patients
        totals = result.totals()
        expected = {
            ResponseKind.DELIVERED: self.delivered,
            ResponseKind.REFUSED: self.refused,
            ResponseKind.REJECTED: len(self.broken),
            ResponseKind.SKIPPED: self.missing,
            ResponseKind.VERSION_NOT_TAKEN: self.others,
        }
        wrong = [
            f"{outcome}: {totals.get(outcome, 0)} records, but the export has {count}."
            for outcome, count in expected.items()
            if totals.get(outcome, 0) != count
        ]
        if counts["resources"] != stored or counts["duplicates"]:
            wrong.append(
                f"The sandbox holds {counts['resources']} resources and {counts['duplicates']}"
                f" duplicates; it should hold {stored} and 0."
            )
        found = {
            record.label: [where for issue in record.issues for where in issue.expression]
            for record in result.records
            if record.outcome is ResponseKind.REJECTED
        }
        for record in self.broken:
            places = next((found[label] for label in found if record.path in label), [])
            if record.fault not in places:
                wrong.append(
                    f"{record.path}: rejected for {places}, but {record.fault} is at fault."
                )
        return wrong


def _is_of(record: ManifestRecord, versions: frozenset[FhirVersion]) -> bool:
    return FhirVersion.parse(record.fhir_version) in versions


def _beyond(profile: Profile, records: list[ManifestRecord], export: Path) -> int:
    """How many of these are larger than the server takes, or otherwise beyond its limits."""
    with ZipFile(export) as archive:
        names = {record.path: "" for record in records}
        for name in archive.namelist():
            path = name.partition("/")[2]
            if path in names:
                names[path] = name
        bodies = [archive.read(name) for name in names.values()]
    return sum(not is_within(orjson.loads(body), len(body), profile) for body in bodies)
