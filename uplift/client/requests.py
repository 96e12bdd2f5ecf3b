"""Makes the requests of calls: their addresses, queries and bodies, and those of further pages."""

from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from .messages import Call, Page, Reply, Request, json_of
from .models import ListPage

JSON = {"Content-Type": "application/json"}

_Shape = TypeVar("_Shape", bound=ListPage)
_Item = TypeVar("_Item")


def quoted(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def query(**parameters: object) -> str:
    """The parameters that are given. Each may be a list, which repeats it."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def sending(method: str, target: str, members: Mapping[str, object]) -> Request:
    """A request with a JSON object of the members that are given."""
    given = {name: value for name, value in members.items() if value is not None}
    return Request(method, target, msgspec.json.encode(given), JSON)


def linked(address: str) -> Request:
    """The request for a link. Only path and query count: the key goes to no other host."""
    parts = urlsplit(address)
    # A proxy may serve the API below a path of its own, which is already in the client's URL.
    path = parts.path[max(parts.path.find("/v1/"), 0) :]
    return Request("GET", f"{path}?{parts.query}" if parts.query else path)


def listed(
    target: str, shape: type[_Shape], items: Callable[[_Shape], list[_Item]]
) -> Call[Page[_Item]]:
    """The call for one page of a list, which leads to the next."""
    decode = json_of(shape)

    def read(reply: Reply) -> Page[_Item]:
        page = decode(reply)
        return Page(items(page), listed(page.next, shape, items) if page.next else None)

    return Call(linked(target), read)
