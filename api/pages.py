"""Lists come in pages. Each page names the address of the next one."""

from collections.abc import Iterable, Sequence
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query

from uplift.ledger.pages import Order

After = Annotated[
    UUID | None, Query(description="Start after this id: the last id of the previous page.")
]
Sorted = Annotated[Order, Query(description="`desc`: the newest first. `asc`: the oldest first.")]
PageSize = Annotated[int, Query(ge=1, le=500, description="Maximum number of items on the page.")]


def next_page(
    path: str,
    ids: Sequence[object],
    *,
    limit: int,
    order: Order = Order.NEWEST_FIRST,
    query: Iterable[tuple[str, object]] = (),
) -> str | None:
    """The address of the page after the one with these ids; None if that page was not full.

    `query` are the filters to repeat. Those that are None are left out.
    """
    if len(ids) < limit:
        return None
    if order is not Order.NEWEST_FIRST:
        query = [("order", order), *query]
    given = [(name, value) for name, value in query if value is not None]
    return f"{path}?{urlencode([('after', ids[-1]), ('limit', limit), *given])}"
