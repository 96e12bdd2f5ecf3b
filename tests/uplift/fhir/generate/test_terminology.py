from typing import Any

import pytest

from uplift.fhir.generate.definitions import Definitions
from uplift.fhir.generate.terminology import Terminology
from uplift.fhir.versions import FhirVersion

ANIMALS = {
    "resourceType": "CodeSystem",
    "url": "urn:animals",
    "content": "complete",
    "concept": [
        {"code": "bird", "concept": [{"code": "owl", "concept": [{"code": "snowy-owl"}]}]},
        {"code": "cat"},
        {"code": "lion", "property": [{"code": "subsumedBy", "valueCode": "cat"}]},
    ],
}


def codes_of(compose: dict[str, Any], **others: dict[str, Any]) -> Any:
    definitions = Definitions(FhirVersion.R4)
    definitions.code_systems["urn:animals"] = ANIMALS
    definitions.value_sets["urn:these"] = {"compose": compose}
    for name, other in others.items():
        definitions.value_sets[f"urn:{name}"] = {"compose": other}
    return Terminology(definitions).codes("urn:these|4.0.1")


def below(op: str, value: str) -> dict[str, Any]:
    rule = {"property": "concept", "op": op, "value": value}
    return {"include": [{"system": "urn:animals", "filter": [rule]}]}


ALL = {"bird", "owl", "snowy-owl", "cat", "lion"}
WHOLE = {"include": [{"system": "urn:animals"}]}


@pytest.mark.parametrize(
    ("compose", "codes"),
    [
        (WHOLE, ALL),
        ({"include": [{"system": "urn:animals", "concept": [{"code": "cat"}]}]}, {"cat"}),
        (below("is-a", "bird"), {"bird", "owl", "snowy-owl"}),
        (below("descendent-of", "bird"), {"owl", "snowy-owl"}),
        (below("is-a", "cat"), {"cat", "lion"}),
        ({**WHOLE, "exclude": below("is-a", "bird")["include"]}, {"cat", "lion"}),
    ],
)
def test_a_value_set_is_listed(compose: dict[str, Any], codes: set[str]) -> None:
    assert codes_of(compose) == {"urn:animals": codes}


@pytest.mark.parametrize(
    "compose",
    [
        {"include": [{"system": "urn:ietf:bcp:13"}]},
        {"include": [*WHOLE["include"], {"system": "http://loinc.org"}]},
        below("regex", ".*"),
        {"include": [{"valueSet": ["urn:not-there"]}]},
        {},
    ],
)
def test_a_value_set_that_cannot_be_listed_is_not_checked(compose: dict[str, Any]) -> None:
    assert codes_of(compose) is None


def test_an_include_is_narrowed_to_the_value_sets_it_names() -> None:
    birds = below("is-a", "bird")
    assert codes_of(
        {"include": [{"system": "urn:animals", "valueSet": ["urn:birds"]}]}, birds=birds
    ) == {"urn:animals": {"bird", "owl", "snowy-owl"}}


def test_dstu2_value_sets_define_codes_inline_and_import_others() -> None:
    definitions = Definitions(FhirVersion.DSTU2)
    inline = {"system": "urn:s", "concept": [{"code": "a", "concept": [{"code": "b"}]}]}
    definitions.value_sets["urn:inline"] = {"codeSystem": inline}
    definitions.value_sets["urn:these"] = {"compose": {"import": ["urn:inline"]}}
    assert Terminology(definitions).codes("urn:these") == {"urn:s": frozenset({"a", "b"})}
