"""The sending half of a push: the records of a source, in batches, to the API."""

import asyncio
from collections.abc import AsyncIterator

from uplift import client
from uplift.cli.push.client import ApiClient
from uplift.cli.push.progress import PushProgress
from uplift.cli.push.records import Record, Skipped, UnreadableSource
from uplift.cli.push.result import PushedRecord, PushResult, ResponseKind
from uplift.client.records import Cutter

_Batch = list[tuple[Record, PushedRecord]]

_NOT_TAKEN = "version_not_taken"


class Sending:
    """One reader and one list of results for several senders: any number may `run` at once."""

    def __init__(
        self,
        api: ApiClient,
        user: str,
        records: AsyncIterator[Record | Skipped],
        total: int,
        result: PushResult,
        accepted: dict[str, list[PushedRecord]],
        progress: PushProgress,
        *,
        force: bool,
    ) -> None:
        self._api = api
        self._force = force
        self._user = user
        self._records = records
        self._reading = asyncio.Lock()
        self._cutter: Cutter[tuple[Record, PushedRecord]] = Cutter()
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
                batch = await self._next_batch()
            if not batch:
                return
            await self._send(batch)
            self._done += len(batch)
            # The total is an estimate; the end of the push reports the true one.
            if self._done < self._total:
                self._progress.sent(self._done, self._total)

    async def _next_batch(self) -> _Batch:
        """Records to send together; none when the input has ended."""
        while (record := await self._next()) is not None:
            kept = self._keep(record)
            if isinstance(record, Skipped):
                self._done += 1
            elif batch := self._cutter.add((record, kept), len(record.body)):
                return batch
        return self._cutter.rest()

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
                hospital=record.hospital,
            )
        else:
            kept = PushedRecord(
                record.label,
                record.resource_type,
                ResponseKind.WAITING if self._result.waited else ResponseKind.ACCEPTED,
                record.fhir_version,
                record.source,
                record.record_id,
                hospital=record.hospital,
                date=record.date,
            )
        self._result.records.append(kept)
        return kept

    async def _send(self, batch: _Batch) -> None:
        records = [
            client.Record(
                each.body,
                each.fhir_version,
                each.source,
                each.record_id,
                each.source_url,
                each.received_at,
                force=self._force,
            )
            for each, _ in batch
        ]
        for result, (_, kept) in zip(
            await self._api.submit(self._user, records), batch, strict=True
        ):
            self._note(result, kept)

    def _note(self, result: client.RecordResult, kept: PushedRecord) -> None:
        if result.id is None or result.status is None:
            not_taken = result.problem is not None and result.problem.code == _NOT_TAKEN
            kept.outcome = (
                ResponseKind.VERSION_NOT_TAKEN if not_taken else ResponseKind.NOT_ACCEPTED
            )
            kept.why = f"the API responds {result.problem or 'that it keeps no such upload'}"
            return
        kept.upload_id = result.id
        if result.duplicate and result.status == ResponseKind.DELIVERED:
            kept.outcome = ResponseKind.DUPLICATE
        elif result.settled and not self._result.waited:
            kept.outcome = ResponseKind(result.status)
        else:
            # Even a settled one is asked for: the response of a batch has no issues.
            self._accepted.setdefault(result.id, []).append(kept)
