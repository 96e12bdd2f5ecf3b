"""Walks the pages of a list in the ledger."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

Row = TypeVar("Row")


async def read_pages(
    read: Callable[[Row | None, int], Awaitable[list[Row]]], *, page: int, limit: int | None = None
) -> list[Row]:
    """Every row that `read` gives, up to `limit`.

    Args:
        read: called with the last row so far (None at first) and how many rows to read.
        page: rows to read at once.
        limit: how many rows to return at most; None for all.
    """
    found: list[Row] = []
    while True:
        size = page if limit is None else min(page, limit - len(found))
        if size == 0:
            return found
        rows = await read(found[-1] if found else None, size)
        found += rows
        if len(rows) < size:
            return found
