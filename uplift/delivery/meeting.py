"""Where the attempts of one group meet: what is ready goes as one Bundle, each alone otherwise.

An attempt of a group is that of its members. They only share the request.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from uuid import UUID

from uplift import traces
from uplift.delivery.calls import Calls
from uplift.delivery.results import Opened
from uplift.delivery.sharing import Member, apart
from uplift.destinations.requests import Entry
from uplift.destinations.responses import Response

# So long the others wait for one that is not ready, in seconds: its person may have no Patient yet.
# It goes later.
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class _Ready:
    """One that waits for the others. The answer is None if it goes alone."""

    opened: Opened
    entry: Entry
    member: Member
    answer: "asyncio.Future[tuple[Response, int] | None]" = field(repr=False)


class Meeting:
    """Sends what the attempts of a group write first. Each writes here once, or leaves."""

    def __init__(self, calls: Calls, group: Iterable[UUID], *, max_bytes: int) -> None:
        self._calls = calls
        self._awaited = set(group)
        self._max_bytes = max_bytes
        self._ready: list[_Ready] = []
        self._patience: asyncio.TimerHandle | None = None
        self._sends: set[asyncio.Task[None]] = set()

    async def write(
        self, opened: Opened, entry: Entry, refers_to: frozenset[str]
    ) -> tuple[Response, int]:
        """The response to this entry, and how many went with the same request.

        `refers_to` is what the entry's body refers to, as `Type/id`. Raises what `Calls.write`
        raises.
        """
        loop = asyncio.get_running_loop()
        ready = _Ready(opened, entry, _member(opened, entry, refers_to), loop.create_future())
        self._ready.append(ready)
        if self._patience is None:
            self._patience = loop.call_later(_PATIENCE, self._send_ready)
        self.leave(opened.claim.upload_id)
        if (answer := await ready.answer) is not None:
            traces.note(uploads=answer[1])
            return answer
        return await self._calls.write(opened, entry.write, entry.body), 1

    def leave(self, upload_id: UUID) -> None:
        """Nobody waits for this one any more."""
        self._awaited.discard(upload_id)
        if not self._awaited:
            self._send_ready()

    def _send_ready(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        ready, self._ready = self._ready, []
        for positions in apart([each.member for each in ready], max_bytes=self._max_bytes):
            bundle = [ready[position] for position in positions]
            if len(bundle) == 1:
                bundle[0].answer.set_result(None)
                continue
            # Its log lines belong to no single upload.
            task = asyncio.create_task(self._send(bundle), name="bundle", context=Context())
            self._sends.add(task)
            task.add_done_callback(self._sends.discard)

    async def _send(self, bundle: Sequence[_Ready]) -> None:
        try:
            responses = await self._calls.write_bundle(
                [(each.opened, each.entry) for each in bundle]
            )
        except asyncio.CancelledError:
            for each in bundle:
                each.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001  each attempt tells it as its own
            for each in bundle:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        for each, response in zip(bundle, responses, strict=True):
            if not each.answer.done():
                each.answer.set_result((response, len(bundle)))


def _member(opened: Opened, entry: Entry, refers_to: frozenset[str]) -> Member:
    places = {entry.url}
    if opened.delivered_id is not None:
        places.add(f"{entry.resource_type}/{opened.delivered_id}")
    return Member(
        places=frozenset(places),
        refers_to=refers_to,
        body_bytes=len(entry.body),
    )
