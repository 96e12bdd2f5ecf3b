"""The JWTs that log the deployment in.

SMART App Launch 2.2, "Client Authentication: Asymmetric"; RFC 7523; Google, "Using OAuth 2.0 for
Server to Server Applications". Times are seconds since 1970.
"""

import uuid

from uplift.destinations.destination import PrivateKeyLogin
from uplift.tokens.service_account import ServiceAccount
from uplift.tokens.signing_keys import SigningKey

# SMART allows five minutes. A server whose clock is a minute behind would count six.
_SECONDS = 240


def client_assertion(login: PrivateKeyLogin, key: SigningKey, token_url: str, now: float) -> str:
    """Says who asks the token endpoint. Each one has a `jti` of its own, so none works twice.

    It says no `iat`: SMART asks for none, and a clock that is ahead would be refused for it.
    """
    claims = {
        "iss": login.client_id,
        "sub": login.client_id,
        "aud": token_url,
        "exp": int(now) + _SECONDS,
        "jti": str(uuid.uuid4()),
    }
    # A server must find this address among those that it knows of the client, and never just ask
    # there.
    return key.sign(claims, **({"jku": login.jwks_url} if login.jwks_url else {}))


def grant_assertion(account: ServiceAccount, scope: str, token_url: str, now: float) -> str:
    """Says who asks, and for what. Google wants the scope and `iat` in it."""
    claims = {
        "iss": account.email,
        "scope": scope,
        "aud": token_url,
        "iat": int(now),
        "exp": int(now) + _SECONDS,
        "jti": str(uuid.uuid4()),
    }
    return account.key.sign(claims)
