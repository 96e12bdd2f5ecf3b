"""The example export arrives at a strict R4 server that wants a login, each record once, though
every third answer is spoiled: with a secret, and with keys that sign. A person who is erased
there is found nowhere."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cutting_proxy import SPOILINGS, CuttingProxy
from tests.held import assert_each_is_there_once, assert_nothing_is_there, ids_at
from tests.real_server import LATE, push_both, run_uplift, write_exports
from tests.wide.sekmet import CLIENT_ID, SECRET, run_sekmet, sekmet_to_be
from uplift.destinations.destination import PrivateKeyLogin
from uplift.destinations.http_client import open_http
from uplift.errors import LoginFailed
from uplift.tokens.ask_for_token import ask_for_token
from uplift.tokens.signing_keys import key_set, new_key, read_key, write_key

_SETTINGS = {
    "UPLIFT_DESTINATION": "sekmet",
    "UPLIFT_DESTINATION_PRESET": "hapi",
    "UPLIFT_DESTINATION_CLIENT_ID": CLIENT_ID,
}


@pytest.mark.timeout(900)  # seconds, for a machine that does much else
def test_each_record_is_there_once_and_after_an_erasure_none(tmp_path: Path) -> None:
    exports = write_exports(tmp_path)
    with run_sekmet(tmp_path) as sekmet:
        with CuttingProxy(sekmet.base, late_seconds=LATE) as proxy:
            settings = {
                "UPLIFT_DESTINATION_R4": proxy.url,
                "UPLIFT_DESTINATION_LOGIN": "client_credentials",
                "UPLIFT_DESTINATION_TOKEN_URL": sekmet.token_url,
                "UPLIFT_DESTINATION_CLIENT_SECRET": SECRET,
            }
            with run_uplift(tmp_path / "uplift", _SETTINGS | settings) as uplift:
                push_both(uplift, exports, "r4")
                assert set(proxy.spoiled) == set(SPOILINGS)
                assert_each_is_there_once(sekmet.base, exports, "r4", sekmet.headers())
                there = ids_at(sekmet.base, exports, "r4", sekmet.headers())
                uplift.erase_upstream("alice", "r4")
                assert_nothing_is_there(sekmet.base, there, sekmet.headers())
                uplift.push(exports.changed, "alice")
        assert_each_is_there_once(sekmet.base, exports, "r4", sekmet.headers())


@pytest.mark.timeout(900)
def test_so_it_is_with_smart_backend_services_while_the_keys_rotate(tmp_path: Path) -> None:
    """The server says where tokens are, and reads the keys where Uplift serves them."""
    exports = write_exports(tmp_path)
    signs, other = tmp_path / "signs.pem", tmp_path / "other.pem"
    # Of one kind: it tries each key that it knows, and fails at one of another kind.
    write_key(new_key("ES384"), signs)
    write_key(new_key("ES384"), other)
    first = read_key(signs)

    def rotate() -> None:
        (tmp_path / "next.pem").write_bytes(other.read_bytes())
        other.write_bytes(signs.read_bytes())
        (tmp_path / "next.pem").replace(signs)

    server = sekmet_to_be()
    with CuttingProxy(server.base, late_seconds=LATE) as proxy:
        settings = {
            "UPLIFT_DESTINATION_R4": proxy.url,
            "UPLIFT_DESTINATION_LOGIN": "private_key_jwt",
            "UPLIFT_DESTINATION_KEY_FILE": str(signs),
            "UPLIFT_DESTINATION_OTHER_KEY_FILE": str(other),
            "UPLIFT_DESTINATION_SCOPE": "system/*.cruds",
        }
        with run_uplift(tmp_path / "uplift", _SETTINGS | settings) as uplift:
            jwks_url = str(uplift.api.base_url.join("/.well-known/jwks.json"))
            shown = {key["kid"] for key in uplift.api.get(jwks_url).json()["keys"]}
            assert shown == {first.kid, read_key(other).kid}
            # Tokens end so soon that each push needs several.
            with run_sekmet(tmp_path, server, token_seconds=10, jwks_url=jwks_url) as sekmet:
                push_both(uplift, exports, "r4", between=rotate)
                assert set(proxy.spoiled) == set(SPOILINGS)
                assert_each_is_there_once(sekmet.base, exports, "r4", sekmet.headers())
    assert read_key(signs).kid != first.kid


@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
async def test_it_takes_what_a_key_of_either_kind_signs(tmp_path: Path, algorithm: str) -> None:
    file = tmp_path / "key.pem"
    write_key(new_key(algorithm), file)
    jwks = key_set([read_key(file)])
    login = PrivateKeyLogin(CLIENT_ID, file, scope="system/*.cruds")
    with run_sekmet(tmp_path, jwks=jwks) as sekmet:
        async with open_http(connections=1) as http:
            token = await ask_for_token(http, login, sekmet.base, now=time.time())
            headers = {"Authorization": f"Bearer {token.access_token}"}
            answer = await http.get(f"{sekmet.base}/Patient", headers=headers)
            assert answer.status_code == 200
            for changed, code in (
                (replace(login, client_id="another"), "invalid_client"),
                (replace(login, scope="user/*.rs"), "invalid_scope"),
            ):
                with pytest.raises(LoginFailed) as raised:
                    await ask_for_token(http, changed, sekmet.base, now=time.time())
                assert raised.value.code == code
            for now in (time.time() - 600, time.time() + 600):
                with pytest.raises(LoginFailed) as raised:
                    await ask_for_token(http, login, sekmet.base, now=now)
                assert raised.value.code == "clock_skew"
            file.unlink()
            write_key(new_key(algorithm), file)
            with pytest.raises(LoginFailed) as raised:
                await ask_for_token(http, login, sekmet.base, now=time.time())
            assert raised.value.code == "unknown_key"
