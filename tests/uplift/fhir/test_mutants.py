from collections.abc import Callable
from functools import cache

import pytest

from tests.uplift.fhir.mutants import KINDS
from tests.uplift.fhir.mutation_table import Tally, tally
from tests.uplift.fhir.published import needs_definitions, needs_examples
from uplift.fhir.versions import FhirVersion

pytestmark = [needs_definitions, needs_examples]

IN_OPEN_VALUE_SETS_TOO = {
    "code outside a required value set",
    "concept outside a required value set",
}
UNDERSTOOD_ALL_THE_SAME = {
    "empty array",
    "empty object",
    "empty string",
    "blank string",
    "blank string in a contained resource",
    "zero where 1 is the least",
    "date with a time",
    "dateTime without a zone",
    "id of 65 characters",
    "id with an underscore",
    "attachment with data and without a type",
    "reference to a type that is not allowed",
    "reference to a contained resource that is not there",
    "period that ends before it starts",
    "narrative with an open tag",
    "narrative with a script",
    "narrative that is plain text",
    "narrative that is empty",
    "narrative left out of its text",
    "value beside a reason for its absence",
    "extension with both a value and extensions",
}
"""Kinds that the default set may let through. All others change the meaning, or hide it."""
UNDERSTOOD_IN_DSTU2 = {
    "instant without a zone",
    "required element left out, at the top",
    "required element left out, inside",
}
NOT_IN_EXAMPLES = {
    FhirVersion.DSTU2: set[str](),
    FhirVersion.STU3: {"concept outside a required value set"},
    FhirVersion.R4: set[str](),
}


# pytest forgets a parameter's fixture before the module ends.
_tally = cache(tally)


@pytest.fixture(scope="module", params=FhirVersion)
def counted(request: pytest.FixtureRequest) -> Tally:
    version: FhirVersion = request.param
    return _tally(version, every=3)  # all of them find no more, and take a minute


def test_strict_rejects_at_least_97_percent_and_a_half(
    counted: Tally, record_property: Callable[[str, object], None]
) -> None:
    record_property("table", "\n".join(counted.table()))
    assert counted.share(counted.rejected["strict"]) >= 0.975


def test_no_kind_of_mutant_is_dropped(counted: Tally) -> None:
    assert set(KINDS) - set(counted.made) == NOT_IN_EXAMPLES[counted.version]
    assert len(counted.made) >= 30


def test_strict_rejects_every_kind_throughout_but_codes_of_open_value_sets(counted: Tally) -> None:
    strict = counted.rejected["strict"]
    missed = {kind for kind, made in counted.made.items() if strict[kind] < made}
    assert missed <= IN_OPEN_VALUE_SETS_TOO


def test_default_lets_no_kind_through_that_changes_the_meaning(counted: Tally) -> None:
    strict, default = counted.rejected["strict"], counted.rejected["default"]
    let_through = {kind for kind in counted.made if default[kind] < strict[kind]}
    understood = UNDERSTOOD_ALL_THE_SAME
    if counted.version is FhirVersion.DSTU2:
        understood = understood | UNDERSTOOD_IN_DSTU2
    assert let_through == understood


def test_an_empty_value_does_not_stand_in_for_a_required_one(counted: Tally) -> None:
    if counted.version is not FhirVersion.DSTU2:  # where a required one may be left out
        for kind in ("empty array", "empty object", "empty string", "blank string"):
            assert 0 < counted.rejected["default"][kind] < counted.made[kind]


def test_default_rejects_more_mutants_than_fhir_resources(counted: Tally) -> None:
    assert counted.share(counted.rejected["default"]) > counted.share(counted.library)
