"""Keys of this run of the tests. RSA takes a while to make: each is made once."""

import json
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

EMAIL = "uplift@project.iam.gserviceaccount.com"


@cache
def rsa_private(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_private(
    name: str = "first", curve: type[ec.EllipticCurve] = ec.SECP384R1
) -> ec.EllipticCurvePrivateKey:
    """A key by its name: another name is another key."""
    return ec.generate_private_key(curve())


def pem(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    *,
    password: bytes = b"",
    form: PrivateFormat = PrivateFormat.PKCS8,
) -> bytes:
    sealed: KeySerializationEncryption
    sealed = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, sealed)


def public_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_service_account(file: Path, token_url: str, **changed: object) -> Path:
    """The file that Google gives for a key of a service account."""
    account = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "0123456789abcdef",
        "private_key": pem(rsa_private()).decode(),
        "client_email": EMAIL,
        "client_id": "1",
        "token_uri": token_url,
        **changed,
    }
    kept = {name: value for name, value in account.items() if value is not None}
    file.write_text(json.dumps(kept))
    return file
