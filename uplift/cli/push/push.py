"""Sends every record of a file to Uplift and waits for the outcomes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from uplift.cli.push.batches import Sending
from uplift.cli.push.client import ApiClient, UploadPage
from uplift.cli.push.progress import PushProgress, Silent
from uplift.cli.push.records import Record, Skipped, UnreadableSource
from uplift.cli.push.result import PushedRecord, PushResult
from uplift.cli.push.sources import count_records, read_records
from uplift.client import Upload
from uplift.client.messages import Call

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
    result: PushResult | None = None,
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
        force: older versions take the place of newer ones, too.
        wait_seconds: how long to wait for outcomes after the last upload; None: do not.
        progress: shows the progress of the push.
        result: is filled, so that the caller has what is known when the push stops early.

    Raises:
        UnreadableSource: nothing in `path` could be read.
        ApiError: the API cannot be reached or refuses the key or the user.
    """
    progress = progress or Silent()
    await client.check(user)
    total = await asyncio.to_thread(count_records, path)
    result = result if result is not None else PushResult()
    result.waited = wait_seconds is not None
    accepted: dict[str, list[PushedRecord]] = {}
    found = read_records(path, fhir_version=fhir_version, notes=result.notes)
    async with aclosing(found) as records:
        labelled = _labelled(records, progress)
        sending = Sending(client, user, labelled, total, result, accepted, progress, force=force)
        # One failed sender cancels the others. The first failure is reported.
        try:
            async with asyncio.TaskGroup() as senders:
                for _ in range(concurrency):
                    senders.create_task(sending.run())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
    if result.unread is not None and not result.records:
        raise UnreadableSource(result.unread)
    progress.sent(len(result.records), len(result.records))
    if wait_seconds is not None and accepted:
        await _await_outcomes(client, user, accepted, wait_seconds, progress)
    return result


async def _labelled(
    records: AsyncIterator[Record | Skipped], progress: PushProgress
) -> AsyncIterator[Record | Skipped]:
    async for record in records:
        progress.reading(record.label)
        yield record


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
    client: ApiClient, open_ones: dict[str, list[PushedRecord]], start: Call[UploadPage]
) -> Call[UploadPage]:
    """Read the user's uploads from the page `start` on. Returns the page to start from next time.

    This way, thousands of outcomes take a few pages a round, and pages before the first open
    upload are not read again.
    """
    at = start
    first_open: Call[UploadPage] | None = None
    unseen = set(open_ones)
    while True:
        page = await client.uploads(at)
        for status in page.items:
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


def _note(status: Upload, open_ones: dict[str, list[PushedRecord]]) -> None:
    if status.settled:
        for record in open_ones.pop(status.id, ()):
            record.settle(status)
