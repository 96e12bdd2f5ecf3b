"""What servers add to a resource is no difference. Everything else is, in both directions."""

from typing import Any

import orjson
import pytest

from uplift.destinations.same_content import same_content

OURS: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "1",
    "identifier": [{"system": "urn:oid:1.2", "value": "a"}],
    "text": {"status": "additional", "div": "<div><p>72</p></div>"},
    "extension": [{"url": "urn:x", "valueBoolean": True}],
    "status": "final",
    "subject": {"reference": "Patient/p1"},
    "performer": [{"reference": "urn:uuid:c757873d"}, {"reference": "#lab"}],
    "contained": [{"resourceType": "Organization", "id": "lab"}],
    "valueQuantity": {"value": 72.0},
    "note": [{"text": "a"}, {"text": "b"}],
}
MORE = {"system": "urn:server", "value": "9"}
EXTENSION = {"url": "urn:server", "valueString": "x"}


def with_(**more: Any) -> dict[str, Any]:
    return {**OURS, **more}


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in OURS.items() if name not in names}


SET_BY_EVERY_SERVER = [
    OURS,
    with_(id="another"),
    with_(meta={"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"}),
    without("id"),
    with_(valueQuantity={"value": 72}),
    dict(reversed(OURS.items())),
]


@pytest.mark.parametrize("stored", SET_BY_EVERY_SERVER)
@pytest.mark.parametrize("exactly", [False, True])
def test_what_a_server_sets_or_spells_is_no_difference(
    stored: dict[str, Any], exactly: bool
) -> None:
    assert same_content(OURS, stored, exactly=exactly)


DIV = '<div xmlns="http://www.w3.org/1999/xhtml"><p>72</p></div>'
ADDED = [
    pytest.param(OURS, with_(identifier=[*OURS["identifier"], MORE]), id="an identifier behind"),
    pytest.param(OURS, with_(identifier=[MORE, *OURS["identifier"]]), id="an identifier before"),
    pytest.param(without("identifier"), with_(), id="a first identifier"),
    pytest.param(without("identifier"), with_(identifier=MORE), id="its only identifier"),
    pytest.param(OURS, with_(extension=[*OURS["extension"], EXTENSION]), id="an extension"),
    pytest.param(without("extension"), with_(), id="a first extension"),
    pytest.param(
        OURS, with_(valueQuantity={"value": 72.0, "extension": [EXTENSION]}), id="one inside"
    ),
    pytest.param(OURS, with_(_status={"extension": [EXTENSION]}), id="one of a primitive"),
    pytest.param(
        with_(a=["x", "y"], _a=[None, {"id": "2"}]),
        with_(a=["x", "y"], _a=[{"extension": [EXTENSION]}, {"id": "2"}]),
        id="one in a list of primitives",
    ),
    pytest.param(
        with_(a=["x", "y"]),
        with_(a=["x", "y"], _a=[None, {"extension": [EXTENSION]}]),
        id="the first one in a list of primitives",
    ),
    pytest.param(
        without("text"), with_(text={"status": "generated", "div": DIV}), id="a narrative"
    ),
    pytest.param(OURS, with_(text={"status": "additional", "div": DIV}), id="xmlns"),
    pytest.param(OURS, with_(subject={"reference": "Patient/9f"}), id="another id of a Patient"),
    pytest.param(
        OURS,
        with_(subject={"reference": "https://api.example/r4/Patient/9f/_history/2"}),
        id="an address of a Patient",
    ),
    pytest.param(
        OURS,
        with_(performer=[{"reference": "Organization/9f"}, {"reference": "#lab"}]),
        id="a resource instead of a urn",
    ),
]


@pytest.mark.parametrize(("ours", "stored"), ADDED)
def test_what_a_server_adds_is_no_difference(ours: dict[str, Any], stored: dict[str, Any]) -> None:
    assert same_content(ours, stored)
    assert not same_content(ours, stored, exactly=True)


@pytest.mark.parametrize(("ours", "stored"), ADDED[:11])
def test_what_a_server_adds_is_a_difference_where_it_lacks(
    ours: dict[str, Any], stored: dict[str, Any]
) -> None:
    assert not same_content(stored, ours)


@pytest.mark.parametrize(
    "stored",
    [
        *(without(name) for name in OURS if name != "id"),
        with_(valueQuantity={"value": 73}),
        with_(valueQuantity={"value": True}),
        with_(valueQuantity={"value": "72"}),
        with_(valueQuantity={"value": 72.0, "id": "1"}),
        with_(valueQuantity=[{"value": 72.0}]),
        with_(note=[{"text": "b"}, {"text": "a"}]),
        with_(note=[{"text": "a"}, {"text": "b"}, {"text": "c"}]),
        with_(note=[{"text": "a"}]),
        with_(note={"text": "a"}),
        with_(issued="2026-01-01T00:00:00Z"),
        with_(modifierExtension=[EXTENSION]),
        with_(identifier=[MORE]),
        with_(identifier=OURS["identifier"][0]),
        with_(extension=[EXTENSION]),
        with_(extension=[{**OURS["extension"][0], "valueBoolean": False}]),
        with_(_status={"id": "1"}),
        with_(_status=None),
        with_(_status="x"),
        with_(_status=[{"extension": [EXTENSION]}, "x"]),
        with_(_status=[None, 1]),
        with_(text={"status": "generated", "div": DIV}),
        with_(text={"status": "additional", "div": "<div><p>73</p></div>"}),
        with_(subject={"reference": "Group/9f"}),
        with_(subject={"reference": "9f"}),
        with_(subject={"reference": "#p1"}),
        with_(subject={"reference": "Patient/9f", "display": "Alice"}),
        with_(performer=[{"reference": "urn:uuid:other"}, {"reference": "#lab"}]),
        with_(performer=[{"reference": "urn:uuid:c757873d"}, {"reference": "Organization/lab"}]),
        with_(resourceType="Condition"),
        {},
        [OURS],
        None,
        "text",
        with_(note=orjson.loads("[" * 500 + "]" * 500)),
    ],
)
def test_anything_else_is_a_difference(stored: Any) -> None:
    assert not same_content(OURS, stored)


def test_an_element_that_only_looks_like_another_kind_is_a_difference() -> None:
    assert not same_content({"_a": [1]}, {"_a": [{}]})
    assert not same_content({"identifier": {}}, {"identifier": [{}]})
    assert not same_content({"text": {}}, {"text": {"status": "generated"}})
    assert not same_content({"reference": "what"}, {"reference": "Patient/1"})
    assert not same_content({"div": "<div>a</div>"}, {"div": "<div xmlns='x'>b</div>"})
