"""The address at which callers reach the API, for links that need scheme and host."""

import re

from fastapi import Request

from uplift.api.problems import Problem
from uplift.problem_types import ProblemType
from uplift.wiring import Relay

# RFC 3986, 3.2.2 and 3.2.3: a name or an address, and a port.
_HOST = re.compile(r"(?:[A-Za-z0-9._\-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def public_address(request: Request) -> str:
    """The setting `api_public_url`; without one, scheme and host of the request. No slash ends it.

    Raises a Problem (400) if the request's Host is no host.
    """
    relay: Relay = request.app.state.relay
    if relay.settings.api_public_url:
        return relay.settings.api_public_url
    # HTTP/1.0 has no Host.
    host = request.headers.get("host") or "{}:{}".format(*request.scope["server"])
    if not _HOST.fullmatch(host):
        raise Problem(
            ProblemType.MALFORMED_HTTP,
            "The Host of the request is not a host name with an optional port.",
        )
    return f"{request.scope['scheme']}://{host}"
