"""Runs calls that come together as one group, in one statement or transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


# So many items run alone at once after a slow failure. Each may use a connection.
_AT_ONCE = 4


class Coalescer(Generic[Item, Result]):
    """Runs items in groups: while one group runs, new items wait for the next.

    There is no timer, so an idle system adds no delay. Each caller gets its own result. When a
    group fails, its items run alone, and each caller gets its own error. When the failure
    `concerns_all`, such as a database that cannot be reached, all callers get that error: a hundred
    items that each meet it alone would take minutes.

    What `is_slow`, such as a time-out, may be one item's or everybody's: items then run alone a few
    at once. If the first few fail so too, or the group before did and nothing succeeded since, all
    callers get that error. A group has `limit` items or fewer.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Awaitable[list[Result]]],
        *,
        limit: int = 100,
        concerns_all: Callable[[Exception], bool] = lambda _: False,
        is_slow: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        self._run = run
        self._is_slow = is_slow
        self._was_slow = False
        self._limit = limit
        self._concerns_all = concerns_all
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """Run `item` with the next group; its result, or its error."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            # In a context of its own: the log fields of the first caller are not the group's.
            self._task = asyncio.create_task(self._run_groups(), context=Context())
        return await future

    async def _run_groups(self) -> None:
        group: list[tuple[Item, asyncio.Future[Result]]] = []
        try:
            while self._waiting:
                group = self._waiting[: self._limit]
                del self._waiting[: self._limit]
                await self._run_group(group)
        finally:
            self._task = None
            # Items are left only if this task was cancelled: their callers must not wait for ever.
            for _, future in (*group, *self._waiting):
                future.cancel()
            self._waiting.clear()

    async def _run_group(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        was_slow = self._was_slow
        error = await self._try(group)
        if error is None:
            return
        if len(group) == 1 or self._concerns_all(error) or (was_slow and self._is_slow(error)):
            _give_error(group, error)
            return
        at_once = _AT_ONCE if self._is_slow(error) else 1
        while group:
            some, group = group[:at_once], group[at_once:]
            tried = await asyncio.gather(*(self._try([single]) for single in some))
            errors = [each for each in tried if each is not None]
            for single, each in zip(some, tried, strict=True):
                if each is not None:
                    _give_error([single], each)
            slow = len(errors) == len(some) > 1 and all(map(self._is_slow, errors))
            if slow or any(map(self._concerns_all, errors)):
                _give_error(group, errors[0])
                return

    async def _try(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> Exception | None:
        """Give each caller its result; the error if there are none."""
        try:
            results = await self._run([item for item, _ in group])
        except Exception as error:  # noqa: BLE001  it goes to the callers
            self._was_slow = self._is_slow(error)
            return error
        self._was_slow = False
        for (_, future), result in zip(group, results, strict=True):
            # A caller that was cancelled meanwhile waits no more.
            if not future.done():
                future.set_result(result)
        return None


def _give_error(
    group: list[tuple[Item, asyncio.Future[Result]]],
    error: Exception,
) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
