"""Values of the primitive types, judged by the compiled schemas through an Extension."""

import json
from typing import Any

import pytest

from uplift.fhir.tolerances import Tolerances
from uplift.fhir.validate import validate

STRICT = Tolerances.named("strict")

GOOD: dict[str, list[Any]] = {
    "Boolean": [True, False],
    "Integer": [0, -1, 2**31 - 1, -(2**31)],
    "PositiveInt": [1, 2**31 - 1],
    "UnsignedInt": [0],
    "Decimal": [0, 1, -1.5, 1e-7, 10**30],
    "String": ["a", " a ", "line\nline\t", "é😀", "\u00a0"],
    "Code": ["a", "a b", "<="],
    "Id": ["a", "A-1.b", "a" * 64],
    "Uri": ["urn:x:y", "#", "relative/path?x=1"],
    "Oid": ["urn:oid:1.2.3", "urn:oid:2.16.840.1.113883.4.3.0"],
    "Base64Binary": ["QQ==", "QUI=", "QUJD", "QUJD\r\nQUJD ", " QUJD"],
    "Date": ["2019", "2019-02", "2019-02-28", "2020-02-29", "2000-02-29", "2019-12-31"],
    "DateTime": [
        "2019",
        "2019-02",
        "2019-02-28",
        "2019-02-28T00:00:00Z",
        "2019-02-28T23:59:59.123456789-05:00",
        "2020-02-29T10:00:00+14:00",
    ],
    "Instant": ["2019-02-28T10:00:00Z", "2019-02-28T10:00:00.715+01:00"],
    "Time": ["00:00:00", "23:59:59.5"],
}
BAD: dict[str, list[Any]] = {
    "Boolean": ["true", 1, 0, "", None],
    "Integer": ["1", 1.0, 1.5, 1e2, 2**31, -(2**31) - 1, True],
    "PositiveInt": [0, -1],
    "UnsignedInt": [-1],
    "Decimal": ["1.50", "", True],
    "String": ["", " ", "\t\n", "a\x07", 1],
    "Code": ["", " a", "a ", "a  b"],
    "Id": ["", "a b", "a/b", "é"],
    "Uri": ["", "a b", " a"],
    "Oid": ["1.2.3", "urn:oid:3.1", "urn:oid:1.02"],
    "Base64Binary": ["", "Q", "QQ", "QQ=", "QUI==", "QU~D", "QUJD=QUJD"],
    "Date": [
        "19",
        "2019-13",
        "2019-00",
        "2019-02-29",
        "1900-02-29",
        "2019-02-30",
        "2019-04-31",
        "2019-01-32",
        "2019-1-1",
        "01/02/2019",
        "2019-02-28T10:00:00Z",
        "2019-02-28\n",
        "٢٠١٩",
    ],
    "DateTime": [
        "2019-02-29T10:00:00Z",
        "2019-02-28T10:00:00",
        "2019-02-28T10:00Z",
        "2019-02-28T24:00:00Z",
        "2019-02-28T10:60:00Z",
        "2019-02-28T10:00:00+15:00",
        "2019-02T10:00:00Z",
        "2019-02-28 10:00:00Z",
    ],
    "Instant": ["2019-02-28", "2019-02-30T10:00:00Z"],
    "Time": ["24:00:00", "10:00", "10:00:00Z"],
}


def judged(version: str, name: str, value: Any) -> bool:
    extension = {"url": "urn:x:y", f"value{name}": value}
    basic = {"resourceType": "Basic", "code": {"text": "a"}, "extension": [extension]}
    return validate(json.dumps(basic).encode(), version, tolerances=STRICT).valid


@pytest.mark.parametrize("version", ["DSTU2", "STU3", "R4"])
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in GOOD.items() for value in values]
)
def test_a_good_value_passes(version: str, name: str, value: Any) -> None:
    assert judged(version, name, value)


@pytest.mark.parametrize("version", ["DSTU2", "STU3", "R4"])
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_a_bad_value_is_refused(version: str, name: str, value: Any) -> None:
    assert not judged(version, name, value)


def test_a_leap_second_is_known_to_r4_alone() -> None:
    assert judged("R4", "Instant", "2016-12-31T23:59:60Z")
    assert not judged("STU3", "Instant", "2016-12-31T23:59:60Z")


def test_a_uuid_is_a_type_of_extension_in_r4() -> None:
    uuid = "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"
    assert judged("R4", "Uuid", uuid)
    assert not judged("R4", "Uuid", uuid[:-1])
    assert not judged("R4", "Uuid", uuid.removeprefix("urn:uuid:"))
