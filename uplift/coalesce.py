"""Runs calls that come together as one group, in one statement or transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Coalescer(Generic[Item, Result]):
    """Runs items in groups: while one group runs, new items wait for the next.

    There is no timer, so an idle system adds no delay. Each caller gets its own result. When a
    group fails, its items run alone, and each caller gets its own error. When the failure
    `concerns_all`, such as a database that cannot be reached, all callers get that error: a hundred
    items that each meet it alone would take minutes. A group has `limit` items or fewer.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Awaitable[list[Result]]],
        *,
        limit: int = 100,
        concerns_all: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        self._run = run
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
        try:
            results = await self._run([item for item, _ in group])
        except Exception as error:  # noqa: BLE001  it goes to the callers
            if len(group) > 1 and not self._concerns_all(error):
                for single in group:
                    await self._run_group([single])
                return
            for _, future in group:
                _give(future, error=error)
            return
        for (_, future), result in zip(group, results, strict=True):
            _give(future, result=result)


def _give(
    future: "asyncio.Future[Result]",
    *,
    result: Result | None = None,
    error: Exception | None = None,
) -> None:
    # A caller that was cancelled meanwhile waits no more.
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)  # type: ignore[arg-type]
