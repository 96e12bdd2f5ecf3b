"""What both clients share: how httpx is set up, its responses as values, and how methods look."""

from collections.abc import Callable
from functools import update_wrapper
from inspect import Parameter, signature
from typing import Any, get_args

import httpx

from .errors import CallError
from .messages import NoReply, Reply, Request

TIMEOUT = httpx.Timeout(60.0, connect=5.0)


def base_url(url: str) -> httpx.URL:
    """The API's address. Raises CallError if it is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise CallError(f"{url!r} is not a URL.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise CallError(f"{url!r} is not a URL that begins with http:// or https://.")
    return parsed


def uses_proxy(url: httpx.URL) -> bool:
    """Whether the proxy of the environment may be used. It is not for this machine."""
    return url.host not in ("127.0.0.1", "::1", "localhost")


def limits(connections: int) -> httpx.Limits:
    """So many connections at once, all of them kept."""
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections)


def headers(key: str) -> dict[str, str]:
    """The headers of every request."""
    return {"Authorization": f"Bearer {key}", "Accept": "application/json"}


def http_request(client: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    """A request for httpx."""
    return client.build_request(
        request.method, request.target, content=request.body, headers=request.headers
    )


def reply_of(response: httpx.Response) -> Reply:
    """A response whose content was read, as a value."""
    # httpx ties a response to its stream and back, and so the body that was sent would stay in
    # memory until the garbage collector comes by.
    response.stream = httpx.ByteStream(b"")
    return Reply(response.status_code, dict(response.headers), response.content)


def no_reply_of(error: httpx.TransportError) -> NoReply:
    """A failure of the transport, as a value."""
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return NoReply("nothing listens there", maybe_received=False)
        case httpx.PoolTimeout():
            return NoReply("all connections are in use", maybe_received=False)
        case httpx.TimeoutException():
            return NoReply("it does not answer in time", maybe_received=True)
        case _:
            return NoReply("the connection breaks", maybe_received=True)


def describe(
    method: Callable[..., object], make: Callable[..., object], items: Any | None = None
) -> None:
    """Give a method the name, text and signature of what makes its call: `help` shows them.

    The method returns the result of the call, or the items of its pages, in such an iterator.
    """
    update_wrapper(method, make)
    of_call = signature(make)
    [result] = get_args(of_call.return_annotation)
    if items is not None:
        result = items[get_args(result)]
    parameters = [Parameter("self", Parameter.POSITIONAL_ONLY), *of_call.parameters.values()]
    shown = of_call.replace(parameters=parameters, return_annotation=result)
    vars(method)["__signature__"] = shown
