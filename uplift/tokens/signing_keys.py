"""Keys that sign assertions: read from files, made, and shown as a JWKS. RFC 7517, RFC 7518.

SMART App Launch 2.2, "Client Authentication: Asymmetric", has two algorithms: RS384 with RSA of
2048 bits or more, and ES384 with the curve P-384. The key decides which of them signs.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from uplift.errors import UnusableKey

_MIN_RSA_BITS = 2048
_RSA_BITS = 3072  # of new keys: as strong as AES-128 (NIST SP 800-57)
_CURVE = "P-384"
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key, the algorithm that it is for, and the name by which the other side finds it."""

    key: RSAKey | ECKey = field(repr=False)
    algorithm: str
    kid: str

    def sign(self, claims: dict[str, Any], **header: str) -> str:
        """A JWT with these claims: RFC 7519. `header` is beside `alg`, `typ` and `kid`."""
        full = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **header}
        return jwt.encode(full, claims, self.key, algorithms=[self.algorithm])

    @property
    def public(self) -> dict[str, Any]:
        """The public half as a JWK, for a server to verify with."""
        named = {"kid": self.kid, "alg": self.algorithm, "use": "sig", "key_ops": ["verify"]}
        return {**self.key.as_dict(private=False), **named}


def key_set(keys: Iterable[SigningKey]) -> dict[str, Any]:
    """The public halves as a JWKS (RFC 7517, 5), each kid once."""
    return {"keys": list({key.kid: key.public for key in keys}.values())}


def new_key(algorithm: str) -> SigningKey:
    """A new key pair for RS384 or ES384."""
    made: RSAKey | ECKey
    made = RSAKey.generate_key(_RSA_BITS) if algorithm == "RS384" else ECKey.generate_key(_CURVE)
    return SigningKey(made, algorithm, made.thumbprint())


def write_key(key: SigningKey, file: Path) -> None:
    """Write a key as PEM into a new file that only its owner can read.

    Raises OSError, also if there is such a file: a key that is in use is not lost.
    """
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "wb") as stream:
        stream.write(key.key.as_pem(private=True))


def read_key(file: Path, *, signs: bool = True) -> SigningKey:
    """The key in a file, as PEM or as a JWK. `signs`: it must be a private one.

    A JWK's own `kid` is kept; otherwise the kid is the key's thumbprint (RFC 7638).

    Raises UnusableKey with what to do; never with what the file holds.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES)
    except OSError as error:
        raise UnusableKey(
            "key_file_unreadable", f"The key file {file} cannot be read ({error.strerror})."
        ) from None
    try:
        return _parse(content, signs=signs)
    except _Wrong as wrong:
        raise UnusableKey(
            "key_file_wrong",
            f"The key file {file} {wrong}. It must have a P-384 key (ES384), or an RSA key of at"
            f" least {_MIN_RSA_BITS} bits (RS384), as PEM or JWK: `uplift destinations new-key"
            " FILE` makes one.",
        ) from None


def rsa_key(pem: str, kid: str) -> SigningKey | None:
    """A key of Google's, which signs with RS256; None if the text has no RSA key that may sign."""
    try:
        found = _from_pem(pem.encode())
    except _Wrong:
        return None
    if not isinstance(found.key, RSAKey) or not found.key.is_private:
        return None
    return SigningKey(found.key, "RS256", kid)


class _Wrong(Exception):
    """What is wrong with a key file, after its name."""


def _parse(content: bytes, *, signs: bool) -> SigningKey:
    found = _from_jwk(content) if content.lstrip()[:1] == b"{" else _from_pem(content)
    if signs and not found.key.is_private:
        raise _Wrong("has a public key only, and the private one must sign")
    return found


def _from_jwk(content: bytes) -> SigningKey:
    try:
        jwk = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _Wrong("is not JSON, though it begins like it") from None
    if "keys" in jwk:
        raise _Wrong("has a set of keys, and one key is needed")
    try:
        match jwk.get("kty"):
            case "RSA":
                # Too short is too short, before the library warns of it: six bits a character.
                if (bits := 6 * len(jwk["n"])) < _MIN_RSA_BITS:
                    raise _Wrong(f"has an RSA key of about {bits} bits")
                loaded: object = RSAKey.import_key(jwk).raw_value
            case "EC":
                loaded = ECKey.import_key(jwk).raw_value
            case other:
                raise _Wrong(f"has a key of the type {str(other)[:20]!r}")
    except (JoseError, ValueError, KeyError, TypeError):
        raise _Wrong("is not a JWK") from None
    kid = jwk.get("kid")
    found = _key(loaded, kid if isinstance(kid, str) else "")
    if jwk.get("alg", found.algorithm) != found.algorithm:
        raise _Wrong(f"is for the algorithm {str(jwk['alg'])[:20]!r}")
    return found


def _from_pem(content: bytes) -> SigningKey:
    try:
        if b"PRIVATE KEY" in content:
            return _key(load_pem_private_key(content, None))
        return _key(load_pem_public_key(content))
    except TypeError:
        raise _Wrong("has a password, and Uplift has none for it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _Wrong("has no key that can be read") from None


def _key(loaded: object, kid: str = "") -> SigningKey:
    """It is made of the bare numbers: a JWK may have more in it, which nobody should see."""
    match loaded:
        case rsa.RSAPrivateKey() | rsa.RSAPublicKey():
            if loaded.key_size < _MIN_RSA_BITS:
                raise _Wrong(f"has an RSA key of {loaded.key_size} bits")
            key: RSAKey | ECKey = RSAKey.import_key(loaded)
            return SigningKey(key, "RS384", kid or key.thumbprint())
        case ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey():
            if loaded.curve.name != "secp384r1":
                raise _Wrong(f"has a key of the curve {loaded.curve.name}")
            key = ECKey.import_key(loaded)
            return SigningKey(key, "ES384", kid or key.thumbprint())
    raise _Wrong("has neither an RSA nor an elliptic curve key")
