"""Keys that sign: what a file may hold, and what is shown of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from tests.uplift.tokens.login_keys import ec_private, pem, public_pem, rsa_private
from uplift.errors import UnusableKey
from uplift.tokens.signing_keys import key_set, new_key, read_key, write_key


def written(tmp_path: Path, content: bytes | dict[str, Any]) -> Path:
    file = tmp_path / "key"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


def ec_jwk(**more: Any) -> dict[str, Any]:
    return {**ECKey.import_key(ec_private()).as_dict(private=True), **more}


@pytest.mark.parametrize(
    ("content", "algorithm"),
    [
        (lambda: pem(ec_private()), "ES384"),
        (lambda: pem(ec_private(), form=PrivateFormat.TraditionalOpenSSL), "ES384"),
        (ec_jwk, "ES384"),
        (lambda: pem(rsa_private()), "RS384"),
        (lambda: pem(rsa_private(), form=PrivateFormat.TraditionalOpenSSL), "RS384"),
        (lambda: dict(RSAKey.import_key(rsa_private()).as_dict(private=True)), "RS384"),
    ],
)
def test_the_key_decides_the_algorithm_and_others_verify_with_what_is_shown(
    tmp_path: Path, content: Callable[[], Any], algorithm: str
) -> None:
    key = read_key(written(tmp_path, content()))
    assert key.algorithm == algorithm
    shown = json.loads(json.dumps(key_set([key])))
    signed = jwt.decode(key.sign({"iss": "me"}), KeySet.import_key_set(shown), [algorithm])
    assert signed.header == {"alg": algorithm, "typ": "JWT", "kid": key.kid}
    assert signed.claims == {"iss": "me"}


def test_what_is_shown_has_nothing_private(tmp_path: Path) -> None:
    file = written(tmp_path, ec_jwk(kid="ours", note="a note of the owner"))
    (shown,) = key_set([read_key(file)])["keys"]
    assert shown.keys() == {"kty", "crv", "x", "y", "kid", "alg", "use", "key_ops"}
    assert (shown["kid"], shown["alg"], shown["use"]) == ("ours", "ES384", "sig")
    rsa = written(tmp_path, pem(rsa_private()))
    (shown,) = key_set([read_key(rsa)])["keys"]
    assert shown.keys() == {"kty", "n", "e", "kid", "alg", "use", "key_ops"}


def test_a_key_has_the_same_name_in_every_form(tmp_path: Path) -> None:
    forms: list[Any] = [pem(ec_private()), public_pem(ec_private()), ec_jwk()]
    assert len({read_key(written(tmp_path, each), signs=False).kid for each in forms}) == 1


def test_a_jwk_of_another_program_may_say_what_it_is_for(tmp_path: Path) -> None:
    jwk = ec_jwk(key_ops=["verify"], use="sig", alg="ES384", ext=True)
    assert read_key(written(tmp_path, jwk)).sign({})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: b"", "no key that can be read"),
        (lambda: b"no key", "no key that can be read"),
        (lambda: pem(ec_private())[:100], "no key that can be read"),
        (lambda: pem(ec_private(), password=b"p"), "has a password"),
        (lambda: public_pem(ec_private()), "public key only"),
        (lambda: pem(ec_private("p256", ec.SECP256R1)), "curve secp256r1"),
        (lambda: pem(rsa_private(1024)), "RSA key of 1024 bits"),
        (
            lambda: ed25519.Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ),
            "neither an RSA nor an elliptic curve",
        ),
        (lambda: b"{", "not JSON"),
        (dict, "type 'None'"),
        (lambda: {"kty": "oct", "k": "c2VjcmV0"}, "type 'oct'"),
        (lambda: {"kty": "EC", "crv": "P-384"}, "not a JWK"),
        (lambda: {"kty": "RSA"}, "not a JWK"),
        (lambda: {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, "RSA key of about 24 bits"),
        (lambda: ec_jwk(alg="ES256"), "for the algorithm 'ES256'"),
        (lambda: {"keys": [ec_jwk()]}, "a set of keys"),
        (
            lambda: dict(ECKey.import_key(ec_private("p256", ec.SECP256R1)).as_dict(private=True)),
            "curve secp256r1",
        ),
    ],
)
def test_another_file_is_refused_with_what_is_needed(
    tmp_path: Path, content: Callable[[], Any], said: str
) -> None:
    file = written(tmp_path, content())
    with pytest.raises(UnusableKey) as raised:
        read_key(file)
    assert said in str(raised.value)
    assert str(file) in str(raised.value)
    assert "uplift destinations new-key" in str(raised.value)
    assert raised.value.code == "key_file_wrong"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableKey, match="No such file") as raised:
        read_key(tmp_path / "none")
    assert raised.value.code == "key_file_unreadable"


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
def test_a_new_key_is_written_where_only_its_owner_reads_it(tmp_path: Path, algorithm: str) -> None:
    made, file = new_key(algorithm), tmp_path / "new"
    write_key(made, file)
    assert file.stat().st_mode & 0o777 == 0o600
    kept = read_key(file)
    assert (kept.algorithm, kept.kid, kept.public) == (algorithm, made.kid, made.public)
    with pytest.raises(FileExistsError):
        write_key(made, file)
