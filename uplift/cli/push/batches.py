"""The sending half of a push: the records of a source, in batches, to the API."""

import asyncio
from collections.abc import AsyncIterator

from uplift.cli.push.client import ApiClient, BatchLine, RecordsNotAccepted, UploadStatus
from uplift.cli.push.records import Record, Skipped, UnreadableSource
from uplift.cli.push.report import PushProgress
from uplift.cli.push.result import PushedRecord, PushResult, ResponseKind

# Several batches, not one long stream: each is safe once it has its response, a failed one is
# repeated quickly, and each is smaller than the 1 MiB that proxies such as nginx accept.
_BATCH_RECORDS = 200
_BATCH_BYTES = 512 * 1024

_Batch = list[tuple[Record, PushedRecord]]


class Sending:
    """One reader and one list of results for several senders: any number may `run` at once."""

    def __init__(
        self,
        client: ApiClient,
        user: str,
        records: AsyncIterator[Record | Skipped],
        total: int,
        result: PushResult,
        accepted: dict[str, list[PushedRecord]],
        progress: PushProgress,
        *,
        force: bool = False,
    ) -> None:
        self._client = client
        self._force = force
        self._user = user
        self._records = records
        self._reading = asyncio.Lock()
        self._next_record: Record | Skipped | None = None  # read already, for the next batch
        self._ended = False
        self._total = total
        self._done = 0
        self._result = result
        self._accepted = accepted
        self._progress = progress

    async def run(self) -> None:
        """Send one batch after the other until the input ends."""
        while True:
            async with self._reading:
                batch, read = await self._next_batch()
            if not read:
                return
            await self._send(batch)
            self._done += read
            # The total is an estimate; the end of the push reports the true one.
            if self._done < self._total:
                self._progress.sent(self._done, self._total)

    async def _next_batch(self) -> tuple[_Batch, int]:
        """Records to send together, and how many were read for them, with those skipped."""
        batch: _Batch = []
        size = read = 0
        while read < _BATCH_RECORDS and size < _BATCH_BYTES:
            if self._next_record is not None:
                record: Record | Skipped | None = self._next_record
                self._next_record = None
            else:
                record = await self._next()
            if record is None:
                break
            if isinstance(record, Record):
                if batch and size + len(record.body) > _BATCH_BYTES:
                    self._next_record = record
                    break
                size += len(record.body)
                batch.append((record, self._keep(record)))
            else:
                self._keep(record)
            read += 1
        return batch, read

    async def _next(self) -> Record | Skipped | None:
        if self._ended:
            return None
        try:
            return await anext(self._records)
        except StopAsyncIteration:
            self._ended = True
        except UnreadableSource as error:
            self._ended = True
            self._result.unread = str(error)
        return None

    def _keep(self, record: Record | Skipped) -> PushedRecord:
        if isinstance(record, Skipped):
            kept = PushedRecord(
                record.label,
                record.resource_type or "unknown",
                ResponseKind.SKIPPED,
                why=record.reason,
            )
        else:
            kept = PushedRecord(
                record.label,
                record.resource_type,
                ResponseKind.WAITING if self._result.waited else ResponseKind.ACCEPTED,
                record.fhir_version,
                record.source,
                record.record_id,
            )
        self._result.records.append(kept)
        return kept

    async def _send(self, batch: _Batch) -> None:
        if not batch:
            return
        try:
            lines = await self._client.submit(
                self._user, [record for record, _ in batch], force=self._force
            )
        except RecordsNotAccepted as error:
            if len(batch) == 1:
                batch[0][1].outcome, batch[0][1].why = ResponseKind.NOT_ACCEPTED, str(error)
                return
            # One of them may be at fault, or their total size.
            middle = len(batch) // 2
            await self._send(batch[:middle])
            await self._send(batch[middle:])
            return
        for line, (_, kept) in zip(lines, batch, strict=True):
            self._note_line(line, kept)

    def _note_line(self, line: BatchLine, kept: PushedRecord) -> None:
        if line.id is None or line.status is None:
            kept.outcome, kept.why = (
                ResponseKind.NOT_ACCEPTED,
                str(line.problem or "the API gives no id"),
            )
            return
        kept.upload_id = line.id
        status = UploadStatus(line.id, line.status)
        if line.duplicate and status.status == ResponseKind.DELIVERED:
            kept.outcome = ResponseKind.DUPLICATE
        elif status.settled and not self._result.waited:
            kept.settle(status)
        else:
            # Even a settled one is asked for: the response of a batch has no issues.
            self._accepted.setdefault(line.id, []).append(kept)
