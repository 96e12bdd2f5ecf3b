"""The public keys of the deployment's logins, for servers that read them at an address.

SMART App Launch 2.2, "Client Authentication: Asymmetric": registering by URL. The address must be
reached without a credential, and has no secret in it.
"""

import asyncio
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from uplift.api.problems import Problem, try_later
from uplift.api.remembered import Remembered
from uplift.errors import UnusableKey
from uplift.problem_types import ProblemType
from uplift.tokens.login_keys import shown_keys
from uplift.tokens.signing_keys import key_set
from uplift.wiring import Relay

# It is for servers: callers of the API have no use for it.
router = APIRouter(include_in_schema=False)

LATE = try_later(ProblemType.BUSY, "The keys of the logins are not read yet.")
"""The answer while reading the key files does not end."""

# A key is registered this long before it signs (docs/destinations/README.md).
_KEPT = {"Cache-Control": "public, max-age=300"}


@router.get("/.well-known/jwks.json")
async def get_jwks(request: Request) -> Response:
    """The JWKS of all destinations with the login private_key_jwt. Empty if there is none."""
    keys: Remembered[bytes] = request.app.state.jwks
    return Response(await keys(), media_type="application/json", headers=_KEPT)


async def read_jwks(relay: Relay) -> bytes:
    """Read the key files. Raises a Problem (500) if one cannot be used: a part of the keys would
    have servers forget the others."""
    try:
        keys = await asyncio.to_thread(shown_keys, relay.destinations.values())
    except UnusableKey:
        raise Problem(
            ProblemType.INTERNAL_ERROR, "A key file of a login cannot be used. See `uplift doctor`."
        ) from None
    shown: dict[str, Any] = key_set(keys)
    return orjson.dumps(shown)
