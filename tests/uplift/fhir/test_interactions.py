from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift.errors import InvalidRead, NotFound
from uplift.fhir.interactions import Interaction, bases_of, parse_interaction, parse_link
from uplift.fhir.types import ONEUP_TYPES, READABLE_TYPES
from uplift.fhir.versions import FhirVersion

R4, STU3, DSTU2 = FhirVersion.R4, FhirVersion.STU3, FhirVersion.DSTU2


def link(url: str, version: FhirVersion = R4) -> Interaction | None:
    return parse_link(version, bases_of(f"https://api.example/{version.path}", version), url)


@pytest.mark.parametrize("base", ["https://a.example/r4", "https://a.example/fhir/r4"])
def test_1uphealth_links_to_either_of_its_two_forms(base: str) -> None:
    assert set(bases_of(base, R4)) == {"https://a.example/r4", "https://a.example/fhir/r4"}
    assert bases_of(base, R4)[0] == base


def test_a_base_without_a_version_has_one_form() -> None:
    assert bases_of("https://hapi.example/fhir", R4) == ("https://hapi.example/fhir",)


@pytest.mark.parametrize(
    ("path", "response_type", "paged"),
    [
        ("Observation", "Bundle", True),
        ("Observation/obs-1", "Observation", False),
        ("Observation/obs-1/_history/2", "Observation", False),
        ("Patient/p1/$everything", "Bundle", True),
        ("Bundle/b1", "Bundle", False),
        ("Binary/1", "Binary", False),
        ("Observation/" + "e" * 255, "Observation", False),
        ("Observation/Tx.A_b-1", "Observation", False),
        ("Observation/..a", "Observation", False),
    ],
)
def test_an_interaction_knows_its_response(path: str, response_type: str, paged: bool) -> None:
    parsed = parse_interaction(R4, path, b"")
    assert (parsed.response_type, parsed.paged) == (response_type, paged)
    assert parsed.address == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/Observation",
        "Observation/",
        "Observation//1",
        "Observation/.",
        "Observation/..",
        "Observation/../Patient",
        "../r4/Observation",
        "..",
        "Observation/%2e%2e",
        "Observation%2f1",
        "Observation\\1",
        "Observation/1\\..",
        "//evil.example/Observation",
        "http://evil.example/Observation",
        "Observation@evil.example",
        "Observation/1@evil.example",
        "Observation/1?_format=json",
        "Observation/1#x",
        "Observation/1;x=1",
        "Observation/1:80",
        "Observation/\x00",
        "Observation/1\n",
        "Observation/1 ",
        "Observation/ö",
        "Observation/\udc2f",
        "Observation/" + "a" * 256,
        "Observation/_search",
        "Observation/_history",
        "Observation/1/_history",
        "Observation/1/_history/..",
        "Observation/1/$everything",
        "Observation/1/$validate",
        "Observation/1/Patient",
        "Patient/$everything",
        "Patient/p1/$everything/x",
        "Patient/p1/$Everything",
        "$export",
        "_history",
        "user-management/v1/user",
        "\u0660",
    ],
)
def test_a_path_beyond_the_grammar_is_refused(path: str) -> None:
    with pytest.raises(InvalidRead):
        parse_interaction(R4, path, b"")


@pytest.mark.parametrize("path", ["Observation/canary/1", "canary\\1", "Group/canary/$everything"])
def test_a_refusal_does_not_repeat_the_path(path: str) -> None:
    with pytest.raises(InvalidRead) as refused:
        parse_interaction(R4, path, b"")
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("version", "resource_type"),
    [
        (R4, "MedicationOrder"),
        (DSTU2, "MedicationRequest"),
        (R4, "observation"),
        (R4, "metadata"),
        (R4, "oauth"),
        (STU3, "Nothing"),
    ],
)
def test_a_type_that_the_version_does_not_have_is_not_found(
    version: FhirVersion, resource_type: str
) -> None:
    with pytest.raises(NotFound) as missing:
        parse_interaction(version, resource_type, b"")
    assert resource_type not in str(missing.value)


def test_what_can_be_written_can_be_read_and_two_types_of_r4_more() -> None:
    more = {version: READABLE_TYPES[version] - ONEUP_TYPES[version] for version in FhirVersion}
    assert more == {DSTU2: frozenset(), STU3: frozenset(), R4: {"Binary", "Provenance"}}
    assert all(ONEUP_TYPES[version] <= READABLE_TYPES[version] for version in FhirVersion)


@pytest.mark.parametrize(
    ("query", "written"),
    [
        (b"", ""),
        (b"_count=5&_skip=10", "_count=5&_skip=10"),
        (b"identifier=urn:x|1", "identifier=urn%3Ax%7C1"),
        (b"code=a,b&code=c", "code=a%2Cb&code=c"),
        (b"_id=", "_id="),
        (b"subject:Patient.name=M%C3%BCller", "subject%3APatient.name=M%C3%BCller"),
        (b"_has:Observation:patient:code=1", "_has%3AObservation%3Apatient%3Acode=1"),
        (b"date=ge2020-01-01T00:00:00%2B05:00", "date=ge2020-01-01T00%3A00%3A00%2B05%3A00"),
        (b"name=a+b", "name=a%20b"),
        (b"name=a%26_id%3D1%23", "name=a%26_id%3D1%23"),
        (b"name=a#b", "name=a%23b"),
        (b"name=/../x", "name=%2F..%2Fx"),
        (b"_format=application/fhir%2Bjson", "_format=application%2Ffhir%2Bjson"),
    ],
)
def test_a_query_keeps_its_meaning_and_is_written_again(query: bytes, written: str) -> None:
    assert parse_interaction(R4, "Observation", query).query == written


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["C"]), max_size=20), max_size=5))
def test_every_value_that_is_taken_arrives_as_it_was_meant(values: list[str]) -> None:
    query = urlencode([("code", value) for value in values])
    parsed = parse_interaction(R4, "Observation", query.encode())
    assert [value for _, value in parse_qsl(parsed.query, keep_blank_values=True)] == values
    assert parse_interaction(R4, "Observation", parsed.query.encode()) == parsed


@pytest.mark.parametrize(
    "query",
    [
        b"access_token=a",
        b"client_id=a",
        b"CLIENT_SECRET=a",
        b"_method=DELETE",
        b"a%0d%0aHost:x=1",
        b"a%00=1",
        b"name=%00",
        b"name=a%0d%0ab",
        b"name=\xff",
        b"name=%ff",
        b"=1",
        b"/x=1",
        b"http://evil.example=1",
        b"a b=1",
        b"_format=xml",
        b"a=" + b"1" * 8192,
        b"&".join(b"a=1" for _ in range(101)),
    ],
)
def test_a_query_that_could_mean_something_else_is_refused_without_repeating_it(
    query: bytes,
) -> None:
    with pytest.raises(InvalidRead) as refused:
        parse_interaction(R4, "Observation", query)
    assert "evil" not in str(refused.value)


def test_what_was_asked_for_does_not_show_in_a_representation() -> None:
    shown = repr(parse_interaction(R4, "Observation/canary-1", b"name=canary-2"))
    assert "canary" not in shown


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://api.example/r4/Observation?_skip=10", "Observation?_skip=10"),
        ("https://api.example/fhir/r4/Observation?_skip=10", "Observation?_skip=10"),
        (
            "https://api.example/r4/Patient/p1/$everything?_skip=10",
            "Patient/p1/$everything?_skip=10",
        ),
        ("https://api.example/r4/Patient/p1/%24everything", "Patient/p1/$everything"),
        ("https://api.example/r4/Observation?a=1&b=%26", "Observation?a=1&b=%26"),
        # HAPI's: it keeps what a search found.
        ("https://api.example/r4?_getpages=a-1&_count=10", "?_getpages=a-1&_count=10"),
        ("https://api.example/r4/?_getpages=a-1", "?_getpages=a-1"),
    ],
)
def test_a_link_below_the_base_means_an_interaction(url: str, address: str) -> None:
    parsed = link(url)
    assert parsed is not None
    assert parsed.address == address


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/r4/Observation?_skip=10",
        "https://api.example.evil.example/r4/Observation",
        "https://api.example@evil.example/r4/Observation",
        "http://api.example/r4/Observation",
        "https://api.example:8443/r4/Observation",
        "https://api.example/stu3/Observation",
        "https://api.example/r4/../user-management/v1/user",
        "https://api.example/r4/Observation/%2e%2e/%2e%2e/x",
        "https://api.example/r4//evil.example/Observation",
        "https://api.example/r4?_type=Patient&_getpages=1",
        "https://api.example/r4?name=x",
        "https://api.example/r4?_getpages=1&access_token=a",
        "https://api.example/r4x?_getpages=1",
        "https://api.example/user-management/v1/user",
        "https://api.example/r4/Observation?access_token=a",
        "https://api.example/r4/Observation?name=\u00e9",
        "//api.example/r4/Observation",
        "Observation?_skip=10",
        "javascript:alert(1)",
        "",
    ],
)
def test_any_other_link_means_nothing(url: str) -> None:
    assert link(url) is None
