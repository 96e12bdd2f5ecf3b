"""The limits of validation. `bench.validation_limits` measures all shapes in all versions."""

import json
import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.validation_limits import PEAK_MB, measure
from uplift.fhir.document import MAX_VALUES
from uplift.fhir.validate import DESCRIBED_FINDINGS, validate
from uplift.fhir.versions import FhirVersion
from uplift.json_values import has_more_values

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('"\\,[{:a\u00fc', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('"\\,[{a', max_size=3), inner)
    ),
    max_leaves=30,
)


@given(JSON, st.booleans())
def test_values_are_counted_as_a_parser_counts_them(value: object, plain: bool) -> None:
    text = json.dumps(value, ensure_ascii=plain).encode()
    values, empty = _count(value)
    assert not has_more_values(text, values + empty)
    assert has_more_values(text, values - 1)


def _count(value: object) -> tuple[int, int]:
    """How many values, and how many of these are empty arrays and objects."""
    if not isinstance(value, dict | list):
        return 1, 0
    inner = [_count(child) for child in (value.values() if isinstance(value, dict) else value)]
    return 1 + sum(all_ for all_, _ in inner), (not value) + sum(empty for _, empty in inner)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("shape", "version"),
    [
        ("two values of a choice", FhirVersion.R4),
        ("contained of every type", FhirVersion.R4),
        ("valid extensions", FhirVersion.STU3),
        ("wrong components", FhirVersion.DSTU2),
    ],
)
def test_the_worst_bodies_that_are_validated_take_little_memory(
    shape: str, version: FhirVersion
) -> None:
    # Seconds are for the benchmark: here they depend on what else runs.
    assert measure(shape, version, largest=True)["peak"] < PEAK_MB / 2


def test_a_body_with_more_values_is_too_complex_and_nothing_else() -> None:
    body = b'{"resourceType":"Patient","name":[%s]}' % b",".join([b"[]"] * MAX_VALUES)
    report = validate(body, "R4")
    assert [(issue.severity, issue.code) for issue in report.issues] == [("fatal", "too-costly")]
    assert report.too_complex
    assert "UPLIFT_MAX_RESOURCE_VALUES" in report.issues[0].diagnostics
    assert not validate(body, "R4", max_values=3 * MAX_VALUES).too_complex


def test_a_narrative_with_more_markup_is_too_complex() -> None:
    attributes = " ".join(f"a{number}=''" for number in range(MAX_VALUES))
    narrative = {"status": "generated", "div": f"<div {attributes}>a</div>"}
    body = orjson.dumps({"resourceType": "Patient", "text": narrative})
    assert validate(body, "R4").too_complex


def test_tolerated_findings_that_are_too_many_are_too_complex() -> None:
    contained = [{"resourceType": "Patient", "id": "a_1"}] * (DESCRIBED_FINDINGS + 1)
    body = orjson.dumps({"resourceType": "Patient", "contained": contained})
    report = validate(body, "R4")
    assert report.too_complex
    assert report.total == DESCRIBED_FINDINGS + 1
    assert not validate(body.replace(b'"a_1"', b'"a"'), "R4").too_complex


@pytest.mark.parametrize("version", FhirVersion)
def test_a_long_attachment_is_no_reason_to_refuse(version: FhirVersion) -> None:
    photo = {"contentType": "image/png", "data": "QUJD" * (7 * 256 * 1024)}
    body = orjson.dumps({"resourceType": "Patient", "photo": [photo]})
    assert validate(body, version).issues == ()
