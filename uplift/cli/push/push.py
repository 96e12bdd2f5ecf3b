"""`uplift push`: sends every record of a file to Uplift and reports the outcomes."""

import asyncio
import time
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console

from uplift.cli.push.batches import Sending
from uplift.cli.push.client import ApiClient, ApiError, UploadStatus
from uplift.cli.push.records import UnreadableSource
from uplift.cli.push.report import ConsoleProgress, PushProgress, Silent, print_report, printable
from uplift.cli.push.result import PushedRecord, PushResult
from uplift.cli.push.sources import count_records, read_records

_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 2.0


async def push_records(
    client: ApiClient,
    path: Path,
    *,
    user: str,
    fhir_version: str | None = None,
    concurrency: int = 4,
    wait_seconds: float | None = 600.0,
    force: bool = False,
    progress: PushProgress | None = None,
) -> PushResult:
    """Send every record at `path` for `user`, then wait until each has an outcome.

    It is safe to run it again: Uplift delivers nothing twice. Memory holds `concurrency` batches of
    half a mebibyte, or of one larger record, and a short note about each other record.

    Args:
        client: an open client of the API.
        path: an Apple Health export, a folder of JSON files, an NDJSON or a JSON file.
        user: the backend's own name for the person.
        fhir_version: for records that state none.
        concurrency: batches under way at once.
        wait_seconds: how long to wait for outcomes after the last upload; None: do not.
        force: an older version takes the place of a newer one.
        progress: shows the progress of the push.

    Raises:
        UnreadableSource: nothing in `path` could be read.
        ApiError: the API cannot be reached or refuses the key or the user.
    """
    progress = progress or Silent()
    await client.check(user)
    total = await asyncio.to_thread(count_records, path)
    result = PushResult(waited=wait_seconds is not None)
    accepted: dict[str, list[PushedRecord]] = {}
    async with aclosing(read_records(path, fhir_version=fhir_version)) as records:
        sending = Sending(client, user, records, total, result, accepted, progress, force=force)
        # One failed sender cancels the others. The first failure is reported.
        try:
            async with asyncio.TaskGroup() as senders:
                for _ in range(concurrency):
                    senders.create_task(sending.run())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
    progress.sent(len(result.records), len(result.records))
    if result.unread is not None and not result.records:
        raise UnreadableSource(result.unread)
    if wait_seconds is not None and accepted:
        await _await_outcomes(client, user, accepted, wait_seconds, progress)
    return result


async def _await_outcomes(
    client: ApiClient,
    user: str,
    accepted: dict[str, list[PushedRecord]],
    wait_seconds: float,
    progress: PushProgress,
) -> None:
    open_ones = dict(accepted)
    deadline = time.monotonic() + wait_seconds
    pause = _FIRST_PAUSE_SECONDS
    page = client.first_page(user)
    progress.settled(0, len(accepted))
    while True:
        before = len(open_ones)
        page = await _read_outcomes(client, open_ones, page)
        progress.settled(len(accepted) - len(open_ones), len(accepted))
        if not open_ones or time.monotonic() >= deadline:
            return
        moving = len(open_ones) < before
        pause = _FIRST_PAUSE_SECONDS if moving else min(pause * 1.5, _MAX_PAUSE_SECONDS)
        await asyncio.sleep(pause)


async def _read_outcomes(
    client: ApiClient, open_ones: dict[str, list[PushedRecord]], start: str
) -> str:
    """Read the user's uploads from the page `start` on. Returns the page to start from next time.

    This way, thousands of outcomes take a few pages a round, and pages before the first open
    upload are not read again.
    """
    at, first_open = start, None
    unseen = set(open_ones)
    while True:
        page = await client.uploads(at)
        for status in page.uploads:
            unseen.discard(status.id)
            _note(status, open_ones)
            if first_open is None and status.id in open_ones:
                first_open = at
        if page.next is None or not open_ones:
            break
        at = page.next
    for upload_id in unseen:
        _note(await client.upload(upload_id), open_ones)
    return first_open or at


def _note(status: UploadStatus, open_ones: dict[str, list[PushedRecord]]) -> None:
    if status.settled:
        for record in open_ones.pop(status.id, ()):
            record.settle(status)


def push(
    path: Annotated[
        Path,
        typer.Argument(
            exists=True,
            readable=True,
            help="Apple Health export.zip (or its unpacked folder), a folder of JSON files, "
            "or an NDJSON file.",
            show_default=False,
        ),
    ],
    user: Annotated[str, typer.Option(help="Your own name for the person.", show_default=False)],
    key: Annotated[
        str,
        typer.Option(envvar="UPLIFT_API_KEY", help="API key or device token.", show_default=False),
    ] = "",
    api: Annotated[
        str, typer.Option(envvar="UPLIFT_API_URL", help="Where Uplift's API listens.")
    ] = "http://127.0.0.1:8080",
    fhir_version: Annotated[
        str | None,
        typer.Option(
            help="For records that state no version: DSTU2, STU3 or R4.", show_default=False
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Send older versions in the place of newer ones, too."),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write a machine-readable report here.", show_default=False),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="How many batches to send at once.")
    ] = 4,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the outcome of each record.")
    ] = True,
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="How many seconds to wait after the last upload.")
    ] = 600.0,
) -> None:
    """Send every record in a file to Uplift and report the outcome of each.

    You can run it again at any time: it resumes, and nothing is delivered twice. Exit code 0:
    everything arrived (with --no-wait: was accepted); 1: something did not; 2: it could not start.
    """
    out, err = _console(stderr=False), _console(stderr=True)
    if not key:
        raise _fail(err, "No API key. Give one with --key or UPLIFT_API_KEY.")
    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise _fail(err, f"--json {json_file}: there is no such folder.")
    progress = ConsoleProgress(err)
    try:
        with progress:
            result = asyncio.run(
                _push(
                    path,
                    api=api,
                    key=key,
                    user=user,
                    fhir_version=fhir_version,
                    concurrency=concurrency,
                    wait_seconds=wait_seconds if wait else None,
                    force=force,
                    progress=progress,
                )
            )
    except KeyboardInterrupt:
        raise _fail(
            err, "Stopped. What was sent is safe; run the same command again to resume.", code=130
        ) from None
    except httpx.InvalidURL:
        raise _fail(err, f"--api {api} is not a URL.") from None
    except ApiError as error:
        resume = " What was sent is safe; run the same command again to resume."
        raise _fail(err, f"{error}{resume if progress.begun else ''}") from None
    except UnreadableSource as error:
        raise _fail(err, str(error)) from None
    print_report(out, result)
    if json_file is not None:
        try:
            with json_file.open("w", encoding="utf-8") as file:
                file.writelines(result.json_pieces())
        except OSError as error:
            raise _fail(err, f"--json {json_file}: {error.strerror}.", code=1) from None
    raise typer.Exit(result.exit_code)


async def _push(
    path: Path,
    *,
    api: str,
    key: str,
    user: str,
    fhir_version: str | None,
    concurrency: int,
    wait_seconds: float | None,
    force: bool,
    progress: PushProgress,
) -> PushResult:
    async with ApiClient(api, key, connections=concurrency) as client:
        return await push_records(
            client,
            path,
            user=user,
            fhir_version=fhir_version,
            concurrency=concurrency,
            wait_seconds=wait_seconds,
            force=force,
            progress=progress,
        )


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr)
    # Off a terminal, rich assumes 80 columns and would cut the table.
    return console if console.is_terminal else Console(stderr=stderr, width=200, no_color=True)


def _fail(console: Console, message: str, code: int = 2) -> typer.Exit:
    console.print(printable(message), markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(code)
