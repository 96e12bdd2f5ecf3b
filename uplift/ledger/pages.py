"""Walks a long list page by page, so that no transaction and no memory has to take all of it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key")


async def walk(
    read: Callable[[Key | None], Awaitable[Sequence[Item]]],
    key_of: Callable[[Item], Key],
    *,
    size: int,
    after: Key | None = None,
) -> AsyncIterator[Sequence[Item]]:
    """The pages that `read` returns for the key of the last item before each.

    It ends after a page with fewer than `size` items, which is given as well.
    """
    while True:
        page = await read(after)
        yield page
        if len(page) < size:
            return
        after = key_of(page[-1])
