"""`uplift demo` and `uplift up`: the whole system on this machine."""

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from uplift.cli.client import ApiClient
from uplift.cli.local.embedded.lock import FolderLock
from uplift.cli.local.environment import remove_environment, write_environment
from uplift.cli.local.processes import interrupted_by_signals
from uplift.cli.local.system import System, make_folder
from uplift.cli.push.push import push_records
from uplift.cli.push.report import ConsoleProgress, print_report
from uplift.cli.push.result import PushResult, ResponseKind
from uplift.cli.running import actor
from uplift.errors import UpliftError
from uplift.ledger import credentials
from uplift.ledger.credentials import Scope
from uplift.ledger.database import Database
from uplift.sandbox.export.make_export import Manifest, write_export
from uplift.settings import Settings

_USER = "demo-person"
_KEY_NAME = "uplift up"
_TEND_SECONDS = 0.5
_OUTCOME_SECONDS = 120.0

# A worker that dies in the middle of the demo should be made good within seconds, not minutes.
_BRISK = {
    "UPLIFT_ATTEMPT_SECONDS": "5",
    "UPLIFT_LEASE_SECONDS": "10",
    "UPLIFT_SETTLE_SECONDS": "2",
    "UPLIFT_SWEEP_SECONDS": "1",
    "UPLIFT_REDISPATCH_SECONDS": "5",
    "UPLIFT_BACKOFF_FIRST_SECONDS": "1",
    "UPLIFT_MAX_BACKOFF_SECONDS": "10",
    "UPLIFT_ONEUP_KEEPS_IDS": "true",
}

console = Console(highlight=False)


def run_demo(data_dir: Path, *, records: int | None = None) -> int:
    """Run the demo in an empty folder of its own; 0 if everything went as it must."""
    lock = FolderLock(data_dir.parent / "demo.lock")
    try:
        make_folder(data_dir.parent)
        lock.acquire()
        shutil.rmtree(data_dir, ignore_errors=True)
        with interrupted_by_signals(), System(data_dir, _BRISK, say=_say) as system:
            write_environment(data_dir, system.environment)
            try:
                return _show(system, data_dir, records)
            finally:
                remove_environment(data_dir)
    except UpliftError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    finally:
        lock.release()


def run_up(data_dir: Path) -> int:
    """Run the system until Ctrl-C; its data stays for the next time."""
    try:
        is_new = not (data_dir / "master_keys").exists()
        settings = {"UPLIFT_LOG_FORMAT": "text", **_chosen()}
        if "UPLIFT_ONEUP_FHIR_URL" not in settings:
            # Our own sandbox does. Without it, what a failure left unknown could not be looked up.
            settings.setdefault("UPLIFT_ONEUP_KEEPS_IDS", "true")
        with interrupted_by_signals(), System(data_dir, settings, say=_say, echo=_echo) as system:
            system.environment["UPLIFT_API_KEY"] = _api_key(system)
            system.environment["UPLIFT_API_URL"] = system.api_url
            file = write_environment(data_dir, system.environment)
            try:
                _print_addresses(system, file)
                if system.sandbox_url is not None and not is_new:
                    console.print(
                        "The simulated 1upHealth starts empty each time; `uplift users add NAME`"
                        " gives a person of before a grant again."
                    )
                with _tended(system):
                    threading.Event().wait()
            finally:
                remove_environment(data_dir)
    except UpliftError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped. The data is kept; `uplift up` goes on from here.")
    return 0


def _chosen() -> dict[str, str]:
    """What the person who starts it has set: their addresses and numbers go before ours."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("UPLIFT_", "FLOWER_")) and value
    }


def _show(system: System, data_dir: Path, records: int | None) -> int:
    export = data_dir / "apple-health-export.zip"
    manifest = write_export(export, records=records)
    console.print(
        f"\nA synthetic person's export: {len(manifest.records)} records in {export.name},"
        f" {len(manifest.broken)} of them broken on purpose,"
        f" {len(manifest.missing)} listed without a file."
    )
    key = _api_key(system)
    headers = {"Authorization": f"Bearer {key}"}
    made = httpx.post(
        f"{system.api_url}/v1/users", json={"appUserId": _USER}, headers=headers, timeout=30
    )
    if made.is_error:
        raise UpliftError(f"The demo's user could not be made: {made.json()['detail']}")
    with _tended(system):
        result = asyncio.run(_push(system.api_url, key, export))
    console.print()
    print_report(console, result)
    assert system.sandbox_url is not None  # noqa: S101  the demo has no other upstream
    counts = httpx.get(f"{system.sandbox_url}/_sandbox/counts", timeout=30).json()["total"]
    wrong = _differences(result, manifest, counts)
    console.print()
    _print_addresses(system, None)
    for line in wrong:
        console.print(line, style="red")
    if not wrong:
        console.print(
            f"\nAll as it must be: {counts['resources']} resources are at the simulated 1upHealth,"
            f" 0 twice; {len(manifest.broken)} broken ones were rejected at the element at fault.",
            style="green",
        )
    console.print("Stopping. `make up` keeps the system running.")
    return 1 if wrong else 0


async def _push(api_url: str, key: str, export: Path) -> PushResult:
    async with ApiClient(api_url, key, connections=4) as client:
        with ConsoleProgress(console) as progress:
            return await push_records(
                client, export, user=_USER, wait_seconds=_OUTCOME_SECONDS, progress=progress
            )


def _differences(result: PushResult, manifest: Manifest, counts: dict[str, int]) -> list[str]:
    """What is not as the export's manifest says it must be."""
    totals = result.totals()
    expected = {
        ResponseKind.DELIVERED: len(manifest.valid),
        ResponseKind.REJECTED: len(manifest.broken),
        ResponseKind.SKIPPED: len(manifest.missing),
    }
    wrong = [
        f"{outcome}: {totals.get(outcome, 0)} records, but the export has {count}."
        for outcome, count in expected.items()
        if totals.get(outcome, 0) != count
    ]
    if counts["resources"] != len(manifest.valid) or counts["duplicates"]:
        wrong.append(
            f"The simulated 1upHealth holds {counts['resources']} resources and"
            f" {counts['duplicates']} duplicates; it should hold {len(manifest.valid)} and 0."
        )
    found = {
        record.label: [where for issue in record.issues for where in issue.expression]
        for record in result.records
        if record.outcome is ResponseKind.REJECTED
    }
    for record in manifest.broken:
        places = next((found[label] for label in found if record.path in label), [])
        if record.fault not in places:
            wrong.append(f"{record.path}: rejected for {places}, but {record.fault} is at fault.")
    return wrong


@contextmanager
def _tended(system: System) -> Iterator[None]:
    """Within, processes that end by themselves are started again."""
    over = threading.Event()

    def tend() -> None:
        while not over.wait(_TEND_SECONDS):
            for name in system.tend():
                console.print(f"{name} had ended and was started again.", style="yellow")

    thread = threading.Thread(target=tend, name="tend", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _api_key(system: System) -> str:
    async def add() -> str:
        url = SecretStr(system.environment["UPLIFT_DATABASE_URL"])
        database = Database.connect(Settings(database_url=url))
        try:
            async with database.transaction() as connection:
                # Keys of starts before: nobody needs them any more.
                for key_id, name, _, _, revoked_at in await credentials.list_api_keys(connection):
                    if name == _KEY_NAME and revoked_at is None:
                        await credentials.revoke(connection, key_id)
                scopes = frozenset({Scope.BACKEND, Scope.OPERATOR})
                return (await credentials.add_api_key(connection, _KEY_NAME, scopes, by=actor()))[1]
        finally:
            await database.close()

    return asyncio.run(add())


def _print_addresses(system: System, environment: Path | None) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("API", f"{system.api_url}/docs")
    table.add_row("Flower", f"{system.flower_url} (login {system.flower_login})")
    for name, url in system.admin_urls.items():
        table.add_row(f"Metrics of {name}", f"{url}/metrics")
    if system.sandbox_url is not None:
        table.add_row("Sandbox", f"{system.sandbox_url}/_sandbox/counts")
    if environment is not None:
        table.add_row("Settings", f"{environment} (other `uplift` commands find them there)")
    console.print(table)


def _say(line: str) -> None:
    console.print(line, style="dim")


def _echo(name: str, line: str) -> None:
    console.print(f"{name:8} {line}", markup=False, soft_wrap=True)
