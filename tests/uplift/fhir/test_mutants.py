from collections.abc import Callable
from functools import cache

import pytest

from tests.uplift.fhir.mutants import KINDS
from tests.uplift.fhir.mutation_table import Tally, tally
from tests.uplift.fhir.published import needs_definitions, needs_examples
from uplift.fhir.versions import FhirVersion

# In one process, since counting takes longest.
pytestmark = [needs_definitions, needs_examples, pytest.mark.xdist_group("mutants")]

NOT_SEEN_BY_A_SCHEMA = {
    "value beside a reason for its absence",
    "reference to a contained resource that is not there",
    "extension with both a value and extensions",
}
IN_OPEN_VALUE_SETS_TOO = {
    "code outside a required value set",
    "concept outside a required value set",
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
    return _tally(version)


def test_at_least_93_percent_of_mutants_are_rejected(
    counted: Tally, record_property: Callable[[str, object], None]
) -> None:
    record_property("table", "\n".join(counted.table()))
    assert counted.share(counted.strict) >= 0.93


def test_no_kind_of_mutant_is_dropped(counted: Tally) -> None:
    assert set(KINDS) - set(counted.made) == NOT_IN_EXAMPLES[counted.version]
    assert len(counted.made) >= 30


def test_every_kind_that_a_schema_can_see_is_rejected_throughout(counted: Tally) -> None:
    missed = {kind for kind, made in counted.made.items() if counted.strict[kind] < made}
    assert missed <= NOT_SEEN_BY_A_SCHEMA | IN_OPEN_VALUE_SETS_TOO


def test_more_mutants_are_rejected_than_by_fhir_resources(counted: Tally) -> None:
    assert counted.share(counted.default) > counted.share(counted.library)
