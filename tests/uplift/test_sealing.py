"""A sealed value opens only with its key and for its row."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift.errors import ConfigurationError, SealError
from uplift.sealing import KeyRing, UserKey, WrappedKey

_BASE64 = base64.b64encode(b"k" * 32).decode()
_KEY = UserKey.generate()


@given(plaintext=st.binary(max_size=200), context=st.binary(max_size=40))
def test_what_is_sealed_opens_again(plaintext: bytes, context: bytes) -> None:
    assert _KEY.open(_KEY.seal(plaintext, context), context) == plaintext


@given(plaintext=st.binary(max_size=64), data=st.data())
def test_an_altered_value_does_not_open(plaintext: bytes, data: st.DataObject) -> None:
    sealed = bytearray(_KEY.seal(plaintext, b"row"))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealError):
        _KEY.open(bytes(sealed), b"row")


@given(plaintext=st.binary(max_size=64), data=st.data())
def test_a_value_that_was_cut_short_does_not_open(plaintext: bytes, data: st.DataObject) -> None:
    sealed = _KEY.seal(plaintext, b"row")
    with pytest.raises(SealError):
        _KEY.open(sealed[: data.draw(st.integers(0, len(sealed) - 1))], b"row")


@given(st.binary(max_size=64))
def test_bytes_that_were_never_sealed_are_a_seal_error(junk: bytes) -> None:
    with pytest.raises(SealError):
        _KEY.open(junk, b"row")


def test_a_value_moved_to_another_row_does_not_open() -> None:
    with pytest.raises(SealError):
        _KEY.open(_KEY.seal(b"body", b"row 1"), b"row 2")


def test_a_value_does_not_open_with_another_users_key() -> None:
    with pytest.raises(SealError):
        UserKey.generate().open(_KEY.seal(b"body", b"row"), b"row")


def test_the_same_value_sealed_twice_looks_different() -> None:
    assert _KEY.seal(b"body", b"row") != _KEY.seal(b"body", b"row")


def test_the_plaintext_is_not_in_the_sealed_value() -> None:
    assert b"canary" not in _KEY.seal(b"canary" * 10, b"row")


def test_the_identity_key_is_the_users_own_and_stays() -> None:
    key_ring = KeyRing.parse(KeyRing.new_entry("a"))
    again = key_ring.unwrap(key_ring.wrap(_KEY, b"user"), b"user")
    assert again.identity_key == _KEY.identity_key
    assert UserKey.generate().identity_key != _KEY.identity_key
    assert len(_KEY.identity_key) == 32


def test_keys_do_not_show_in_repr() -> None:
    assert repr(UserKey(b"canary" * 5)) == "UserKey(…)"
    assert repr(KeyRing.parse(f"a:{_BASE64}")) == "KeyRing(a)"


def test_the_first_key_of_a_key_ring_wraps_and_all_of_them_unwrap() -> None:
    old, new = KeyRing.new_entry("old"), KeyRing.new_entry("new")
    wrapped_before = KeyRing.parse(old).wrap(_KEY, b"user")
    key_ring = KeyRing.parse(f" {new} , {old} ,")
    assert key_ring.current == "new"
    assert key_ring.wrap(_KEY, b"user").master_id == "new"
    assert key_ring.unwrap(wrapped_before, b"user").identity_key == _KEY.identity_key


def test_a_wrapped_key_does_not_open_for_another_user() -> None:
    key_ring = KeyRing.parse(KeyRing.new_entry("a"))
    with pytest.raises(SealError):
        key_ring.unwrap(key_ring.wrap(_KEY, b"alice"), b"bob")


def test_a_missing_master_key_is_named_in_the_error() -> None:
    wrapped = KeyRing.parse(KeyRing.new_entry("gone")).wrap(_KEY, b"user")
    with pytest.raises(SealError, match="'gone', which is not in UPLIFT_MASTER_KEYS"):
        KeyRing.parse(KeyRing.new_entry("here")).unwrap(wrapped, b"user")


def test_another_master_key_under_the_same_id_is_a_seal_error() -> None:
    wrapped = KeyRing.parse(KeyRing.new_entry("a")).wrap(_KEY, b"user")
    with pytest.raises(SealError):
        KeyRing.parse(KeyRing.new_entry("a")).unwrap(wrapped, b"user")


def test_an_erased_users_key_is_a_seal_error() -> None:
    with pytest.raises(SealError):
        KeyRing.parse(KeyRing.new_entry("a")).unwrap(WrappedKey("", b""), b"user")


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_an_empty_key_ring_says_how_to_make_one(text: str) -> None:
    with pytest.raises(ConfigurationError, match="uplift keys master"):
        KeyRing.parse(text)


@pytest.mark.parametrize(
    "entry",
    [
        "canary",
        f":{_BASE64}",
        _BASE64,
        "a:",
        "a:canary",
        f"a:{_BASE64[:-4]}",
        f"a:{_BASE64}{_BASE64}",
        f"a:{base64.b64encode(b'canary' * 5).decode()}",
        "a:" + base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "a:canaryключ",
        f"a:{_BASE64} canary",
    ],
)
def test_a_malformed_entry_is_named_by_its_place_and_never_quoted(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="entry 2 is not id:base64") as caught:
        KeyRing.parse(f"ok:{_BASE64},{entry}")
    assert "canary" not in str(caught.value)
    assert _BASE64 not in str(caught.value)


def test_an_id_that_occurs_twice_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="'a' occurs twice"):
        KeyRing.parse(f"{KeyRing.new_entry('a')},{KeyRing.new_entry('a')}")
