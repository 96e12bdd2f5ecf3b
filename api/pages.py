"""Lists come in pages; each names the address of the one after it."""

from collections.abc import Iterable
from urllib.parse import urlencode


def next_page(
    path: str, last: object, *, size: int, limit: int, query: Iterable[tuple[str, object]] = ()
) -> str | None:
    """The address of the page after one that ends with `last`; None if that was not full.

    Of `query`, what is None was not asked for, and is left out.
    """
    if size < limit:
        return None
    asked = [(name, value) for name, value in query if value is not None]
    return f"{path}?{urlencode([('after', last), ('limit', limit), *asked])}"
