import json

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from uplift.fhir.validate import validate
from uplift.fhir.versions import FhirVersion

# Names that stand in a schema, so that what is made reaches behind the first check.
# fmt: off
NAMES = st.sampled_from([
    "resourceType", "contained", "entry", "resource", "parameter", "part", "response",
    "outcome", "extension", "url", "valueString", "_valueString", "text", "div", "period",
    "start", "end", "id", "identifier", "reference", "subject", "name", "given", "_given",
    "status", "code",
])
# fmt: on
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["Patient", "Bundle", "Parameters", "final", "2019-02-30", "<div>a</div>"]),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(NAMES | st.text(max_size=6), children, max_size=6)
    ),
    max_leaves=20,
)
VERSIONS = st.sampled_from(list(FhirVersion))


@given(st.binary(max_size=200), VERSIONS | st.text(max_size=8))
@settings(deadline=None)
def test_any_bytes_get_a_report(body: bytes, version: str) -> None:
    report = validate(body, version)
    # Hypothesis knows the literals of this repository, and some are valid resources.
    assert report.valid == all(not issue.refuses for issue in report.issues)


@given(
    st.sampled_from(["Patient", "Bundle", "Parameters", "Observation"]),
    st.dictionaries(NAMES, VALUES, max_size=6),
    VERSIONS,
)
@settings(deadline=None, max_examples=200)
def test_any_json_gets_a_report(
    resource_type: str, members: dict[str, object], version: FhirVersion
) -> None:
    body = _dumped({**members, "resourceType": resource_type})
    report = validate(body, version)
    assert report.valid == all(not issue.refuses for issue in report.issues)
    assert (report.total == 0) == (report.issues == ())


def _dumped(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits, lone surrogates
        return json.dumps(value).encode()
