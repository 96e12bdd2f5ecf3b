from typing import Any

import pytest

from uplift.fhir.empties import Empties, has_content, says_nothing

EMPTY: list[Any] = ["", " \t\r\n", [], {}, [""], [[], {}], {"a": ""}, {"a": {"b": [{}]}}]
NOT_EMPTY: list[Any] = [
    "a",
    "\u00a0",
    0,
    False,
    None,
    [None],
    {"a": 0},
    ["", "a"],
    {"a": "", "b": 1},
]


@pytest.mark.parametrize("value", EMPTY)
def test_what_holds_nothing_else_is_empty_too(value: Any) -> None:
    document = {"name": value}
    assert not has_content(value)
    assert Empties.of(document).has("name", value)


@pytest.mark.parametrize("value", NOT_EMPTY)
def test_what_holds_anything_is_not_empty(value: Any) -> None:
    document = {"name": value}
    assert has_content(value)
    assert not Empties.of(document).has("name", value)


def test_each_empty_value_is_found_at_its_own_place() -> None:
    document = {"a": {"b": [{}, "", {"c": []}]}, "d": "x", "Ann Smith": " "}
    found = [
        (each.kind.value, each.expression) for each in Empties.of(document).findings(document, "P")
    ]
    assert found == [
        ("empty_object", "P.a.b[0]"),
        ("empty_string", "P.a.b[1]"),
        ("empty_array", "P.a.b[2].c"),
        ("empty_string", "P.(unknown)"),
    ]


def test_narratives_and_comments_are_judged_elsewhere() -> None:
    document = {"text": {"div": ""}, "fhir_comments": [""]}
    empties = Empties.of(document)
    assert list(empties.findings(document, "P")) == []
    assert not empties.has("text", document["text"])
    assert not empties.has("div", "")


@pytest.mark.parametrize(
    ("elements", "nothing"),
    [
        ({}, True),
        ({"id": "a", "_id": {"id": "b"}, "meta": {"versionId": "1"}, "language": "en"}, True),
        ({"identifier": [{"value": "a"}], "extension": [{"url": "a"}], "text": {"div": "a"}}, True),
        ({"name": [{"text": " "}]}, True),
        ({"name": [{"text": "a"}]}, False),
        ({"active": False}, False),
        ({"_birthDate": {"extension": [{"url": "a"}]}}, False),
        ({"modifierExtension": [{"url": "a"}]}, False),
    ],
)
def test_names_labels_and_extensions_are_no_content(elements: Any, nothing: bool) -> None:
    assert says_nothing({"resourceType": "Patient", **elements}) is nothing
