"""Lists in pages: their order, and the walk through all pages of a long one.

So no transaction and no memory has to take all of a list.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, SQLColumnExpression

Item = TypeVar("Item")
Key = TypeVar("Key")


class Order(StrEnum):
    """The order of a list, as the API and the command line spell it."""

    NEWEST_FIRST = "desc"
    OLDEST_FIRST = "asc"

    def of(self, column: SQLColumnExpression[Any]) -> ColumnElement[Any]:
        """The column in this order, for ORDER BY."""
        return column.desc() if self is Order.NEWEST_FIRST else column.asc()

    def is_after(self, column: SQLColumnExpression[Any], place: Any) -> ColumnElement[bool]:
        """Whether a row comes after that place in this order."""
        return column.op("<" if self is Order.NEWEST_FIRST else ">", is_comparison=True)(place)


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
