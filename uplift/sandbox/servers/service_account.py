"""A service account as Google gives one: the file of its key, and what its assertions are.

https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests
"""

import os
import time
from pathlib import Path
from typing import Any

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

EMAIL = "uplift@sandbox-project.iam.gserviceaccount.com"
_BITS = 2048
_MAX_SECONDS = 3600
_KEY_ID = "sandbox-key"


class ServiceAccount:
    """The account whose key is in a file, which is made if it is not there."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            _write(file)
        self._key = RSAKey.import_key(orjson.loads(file.read_bytes())["private_key"])

    def signed(self, assertion: str) -> bool:
        """Whether this is an assertion of the account's that holds now."""
        try:
            claims = jwt.decode(assertion, self._key, algorithms=["RS256"]).claims
        except (JoseError, ValueError):
            return False
        return _hold(claims, time.time())


def _hold(claims: dict[str, Any], now: float) -> bool:
    begins, ends = claims.get("iat"), claims.get("exp")
    if not isinstance(begins, int) or not isinstance(ends, int):
        return False
    return (
        claims.get("iss") == EMAIL
        and bool(claims.get("scope"))
        and str(claims.get("aud")).endswith("/token")
        and now - _MAX_SECONDS < begins <= now + 60
        and now < ends <= begins + _MAX_SECONDS
    )


def _write(file: Path) -> None:
    private = RSAKey.generate_key(_BITS).as_pem(private=True).decode()
    account = {
        "type": "service_account",
        "project_id": "sandbox-project",
        "private_key_id": _KEY_ID,
        "private_key": private,
        "client_email": EMAIL,
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(orjson.dumps(account, option=orjson.OPT_INDENT_2))
