from typing import Any

import pytest

from uplift.fhir.findings import Kind
from uplift.fhir.invariants import invariant_findings
from uplift.fhir.versions import FhirVersion

R4 = FhirVersion.R4


def found(value: dict[str, Any]) -> list[tuple[Kind, str]]:
    return [(each.kind, each.expression) for each in invariant_findings(value, "Patient", R4)]


def narrative(div: str) -> list[tuple[Kind, str]]:
    return found({"text": {"status": "generated", "div": div}})


@pytest.mark.parametrize(
    ("start", "end", "reversed_"),
    [
        ("2020", "2020", False),
        ("2020", "2019", True),
        ("2020-03-01", "2020", False),
        ("2020-03-01", "2020-02", True),
        ("2020-03-01", "2020-03-01T08:00:00Z", False),
        ("2020-03-02", "2020-03-01T08:00:00Z", True),
        ("2020-03-01T08:00:00Z", "2020-03-01T09:00:00+02:00", True),
        ("2020-03-01T08:00:00+02:00", "2020-03-01T07:00:00Z", False),
        ("2020-03-01T08:00:00.000000002Z", "2020-03-01T08:00:00.000000001Z", False),
        ("2020-03-01T08:00:00", "2020-03-01T07:00:00Z", False),
        ("nonsense T", "2019 T", False),
    ],
)
def test_a_period_is_reversed_when_it_certainly_is(start: str, end: str, reversed_: bool) -> None:
    expected = [(Kind.PERIOD_REVERSED, "Patient.name[0].period")] if reversed_ else []
    assert found({"name": [{"period": {"start": start, "end": end}}]}) == expected


@pytest.mark.parametrize(
    "div",
    [
        '<div xmlns="http://www.w3.org/1999/xhtml"><p>some <b>text</b></p></div>',
        "<div>DSTU2's own examples have no namespace</div>",
        "<div>&nbsp;text &eacute; &amp; &#160;</div>",
        '<div><img src="#1"/></div>',
    ],
)
def test_a_narrative_of_plain_xhtml_passes(div: str) -> None:
    assert narrative(div) == []


@pytest.mark.parametrize(
    "div",
    [
        "text",
        "",
        "<div>open",
        "<div>a</div><div>b</div>",
        "<p>text</p>",
        '<div xmlns="urn:other">text</div>',
        "<div> </div>",
        "<div>&nosuchentity;</div>",
        "<div><script>1</script>text</div>",
        '<div onclick="x()">text</div>',
        '<!DOCTYPE div [<!ENTITY a "aaaa">]><div>&a;</div>',
        "<div>" + "<p>" * 200 + "text" + "</p>" * 200 + "</div>",
    ],
)
def test_any_other_narrative_is_named(div: str) -> None:
    assert narrative(div) == [(Kind.BAD_NARRATIVE, "Patient.text.div")]


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ({"given": [None, "Ann"], "_given": [{"id": "a"}, None]}, True),
        ({"given": ["Ann"], "_given": [None]}, True),
        ({"given": ["Ann"], "_given": [{"id": "a"}]}, True),
        ({"given": [None, "Ann"]}, False),
        ({"given": [None, "Ann"], "_given": [None, {"id": "a"}]}, False),
        ({"given": ["Ann", None], "_given": [{"id": "a"}]}, False),
        ({"given": [None], "_given": "text"}, False),
        ({"_given": [None]}, False),
    ],
)
def test_a_null_stands_only_beside_its_twin(name: dict[str, Any], fine: bool) -> None:
    assert (found({"name": [name]}) == []) is fine


def test_nulls_without_number_are_counted_and_not_described() -> None:
    findings = list(invariant_findings({"given": [None] * 1000}, "HumanName", R4))
    assert len(findings) == 51
    assert sum(each.times for each in findings) == 1000


def test_a_name_that_is_no_elements_name_is_not_repeated() -> None:
    assert found({"Ann Smith": {"start": "2020", "end": "2019"}}) == [
        (Kind.PERIOD_REVERSED, "Patient.(unknown)")
    ]
