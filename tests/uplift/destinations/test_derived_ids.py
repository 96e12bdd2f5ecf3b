"""The ids that Uplift derives: the same for ever, and different where the record is."""

import base64
import re
from typing import Any

import pytest
from pydantic import SecretStr

from uplift.destinations.derived_ids import (
    derived_id,
    new_id_key,
    patient_id,
    read_id_key,
    source_system,
)
from uplift.errors import ConfigurationError
from uplift.settings import Settings

_KEY = bytes(range(32))
_RECORD: dict[str, Any] = {
    "app_user_id": "alice",
    "source": "Hospital A",
    "fhir_version": "R4",
    "resource_type": "Observation",
    "record_id": "1",
    "content": b"{}",
}


def _id(key: bytes = _KEY, /, **changed: Any) -> str:
    return derived_id(key, **{**_RECORD, **changed})


def test_an_id_never_changes_between_releases_of_uplift() -> None:
    assert _id() == "ufde4cecd344fab1d8b13ec3c637b5692"
    assert patient_id(_KEY, app_user_id="alice") == "u148a9e2b16d41373daa55609258b7c11"


def test_it_has_no_part_of_the_record_and_fits_every_server() -> None:
    assert re.fullmatch(r"u[0-9a-f]{32}", _id(record_id="x" * 300 + "_!"))


@pytest.mark.parametrize(
    "changed",
    [
        {"app_user_id": "bob"},
        {"source": "Hospital B"},
        {"source": None},
        {"fhir_version": "DSTU2"},
        {"resource_type": "Condition"},
        {"record_id": "2"},
        {"record_id": None},
    ],
)
def test_each_part_of_a_records_name_makes_another_id(changed: dict[str, Any]) -> None:
    assert _id(**changed) != _id()


def test_two_parts_are_not_confused_by_where_they_end() -> None:
    assert _id(app_user_id="ab", source="c") != _id(app_user_id="a", source="bc")


def test_content_counts_only_without_a_record_id() -> None:
    assert _id(content=b"[]") == _id()
    assert _id(record_id=None, content=b"[]") != _id(record_id=None)


def test_a_record_id_is_not_taken_for_content() -> None:
    assert _id(record_id="{}") != _id(record_id=None)


def test_another_key_makes_other_ids() -> None:
    assert _id(bytes(32)) != _id()


def test_a_person_has_an_id_that_is_no_records() -> None:
    assert patient_id(_KEY, app_user_id="alice") != patient_id(_KEY, app_user_id="bob")


def test_a_source_shows_no_label() -> None:
    assert source_system(b"\xab" * 32) == "urn:uplift:source:" + "ab" * 16
    assert source_system(None) == "urn:uplift:source:unlabelled"


def test_a_new_key_is_one_that_is_read() -> None:
    text = new_id_key()
    assert read_id_key(Settings(id_key=SecretStr(text))) == base64.b64decode(text)
    assert read_id_key(Settings()) is None


@pytest.mark.parametrize("text", ["no base64!", base64.b64encode(bytes(31)).decode()])
def test_a_malformed_key_is_refused_without_its_value(text: str) -> None:
    with pytest.raises(ConfigurationError, match="UPLIFT_ID_KEY") as raised:
        read_id_key(Settings(id_key=SecretStr(text)))
    assert text not in str(raised.value)
