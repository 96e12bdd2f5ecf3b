"""One run of `uplift push`: what it prints, writes and exits with."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from uplift.cli.output import Terminal
from uplift.cli.push.client import ApiClient, ApiError
from uplift.cli.push.dry_run import validate_records
from uplift.cli.push.network import NetworkError, api_address, clean_key
from uplift.cli.push.progress import ConsoleProgress, PushProgress
from uplift.cli.push.push import push_records
from uplift.cli.push.records import UnreadableSource
from uplift.cli.push.report import print_report
from uplift.cli.push.result import PushResult
from uplift.fhir.versions import FhirVersion

ALL_ARRIVED, NOT_ALL_ARRIVED, NOT_READ, NOT_REACHED, INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True, slots=True)
class Session:
    """The options of a push. Its methods return the exit code."""

    user: str
    key: str
    api: str
    fhir_version: str | None
    json_file: Path | None
    concurrency: int
    wait_seconds: float | None
    patience: float
    allow_http: bool
    force: bool
    out: Terminal
    err: Terminal

    def trouble(self, *, dry_run: bool) -> str | None:
        """What is wrong with the options, if anything is."""
        if self.fhir_version is not None and FhirVersion.parse(self.fhir_version) is None:
            return f"--fhir-version {self.fhir_version} is not DSTU2, STU3 or R4."
        if self.json_file is not None and not self.json_file.resolve().parent.is_dir():
            return f"--json {self.json_file}: there is no such folder."
        if dry_run:
            return None
        if not self.user:
            return "Whose records are these? Give your own name for the person with --user."
        try:
            clean_key(self.key)
            api_address(self.api, allow_http=self.allow_http)
        except NetworkError as error:
            return str(error)
        return None

    def dry_run(self, path: Path) -> int:
        """Read and validate everything, without a server."""
        result = PushResult()
        progress = ConsoleProgress(self.err, doing="Validating", done="Validated")
        try:
            with progress:
                validate_records(path, result, progress, fhir_version=self.fhir_version)
        except KeyboardInterrupt:
            self._say("Stopped.")
            return INTERRUPTED
        except UnreadableSource as error:
            self._say(str(error))
            return NOT_READ
        return self._report(result)

    def push(self, path: Path) -> int:
        """Push it, and report."""
        result = PushResult()
        progress = ConsoleProgress(self.err)
        try:
            with progress:
                asyncio.run(self._push(path, progress, result))
        except KeyboardInterrupt:
            self._say(f"Stopped. {result.standing()}")
            return self._write_json(result, INTERRUPTED)
        except (UnreadableSource, NetworkError) as error:
            self._say(str(error))
            return NOT_READ
        except ApiError as error:
            if progress.begun:
                print_report(self.out, result)
            self._say(f"{error}{' ' + result.standing() if result.records else ''}")
            return self._write_json(result, NOT_REACHED)
        return self._report(result)

    async def _push(self, path: Path, progress: PushProgress, result: PushResult) -> None:
        async with ApiClient(
            self.api, self.key, connections=self.concurrency, patience=self.patience
        ) as client:
            await push_records(
                client,
                path,
                user=self.user,
                fhir_version=self.fhir_version,
                concurrency=self.concurrency,
                wait_seconds=self.wait_seconds,
                force=self.force,
                progress=progress,
                result=result,
            )

    def _report(self, result: PushResult) -> int:
        print_report(self.out, result)
        return self._write_json(result, result.exit_code)

    def _write_json(self, result: PushResult, code: int) -> int:
        if self.json_file is None:
            return code
        try:
            # It names a person's hospitals and records: for this account alone.
            opened = os.open(self.json_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(opened, "w", encoding="utf-8") as file:
                if self.json_file.is_file():
                    os.fchmod(opened, 0o600)
                file.writelines(result.json_pieces())
        except OSError as error:
            self._say(f"--json {self.json_file}: {error.strerror}.")
            return code or NOT_ALL_ARRIVED
        return code

    def _say(self, text: str) -> None:
        self.err.print(text, soft_wrap=True)
