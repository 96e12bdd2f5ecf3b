"""What a server changed is seen, whatever it is."""

from typing import Any

import pytest

from tests.differences import Difference, differences, told
from uplift.destinations.references import parse

_BARE = "<div><br /></div>"
_DIV = '<div xmlns="http://www.w3.org/1999/xhtml"><br/></div>'


@pytest.mark.parametrize(
    ("sent", "stored", "found"),
    [
        ({"id": "a", "b": [1]}, {"b": [1], "id": "a"}, []),
        ({}, {"meta": {"source": "#1"}}, [("meta.source", "added")]),
        ({"meta": {}}, {"meta": {"source": "#1"}}, [("meta.source", "added")]),
        ({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]}, [("a.c", "removed")]),
        ({"a": [1, 2]}, {"a": [2, 1]}, [("a", "reordered")]),
        ({"a": [1, 1]}, {"a": [1]}, [("a", "changed")]),
        ({"a": 1}, {"a": True}, [("a", "changed")]),
        ({"a": "1"}, {"a": 1}, [("a", "changed")]),
        ({"text": {"div": _BARE}}, {"text": {"div": _DIV}}, [("text.div", "respelled")]),
        ({"text": {"div": "<div>a</div>"}}, {"text": {"div": _DIV}}, [("text.div", "changed")]),
        ({"text": {"div": "<div>a"}}, {"text": {"div": "<div>b"}}, [("text.div", "changed")]),
    ],
)  # fmt: skip
def test_each_kind_of_difference_is_told_by_its_element(
    sent: Any, stored: Any, found: list[tuple[str, str]]
) -> None:
    assert list(differences(sent, stored)) == found


def test_a_number_that_lost_digits_is_another() -> None:
    sent, stored = parse(b'{"a": 1.50, "b": 2.0}'), parse(b'{"a": 1.5, "b": 2.0}')
    assert list(differences(sent, stored)) == [("a", "changed")]


def test_lists_of_the_same_numbers_are_in_the_same_order() -> None:
    body = b'{"a": [{"b": 1.50}, {"b": 2.0}]}'
    assert list(differences(parse(body), parse(body))) == []


def test_a_page_lists_differences_by_version() -> None:
    page = "| `meta.source` | added | R4 | why |\n| `text.div` | respelled | R4, DSTU2 | so |\n"
    assert told(page, "dstu2") == {Difference("text.div", "respelled")}
    assert len(told(page, "r4")) == 2
