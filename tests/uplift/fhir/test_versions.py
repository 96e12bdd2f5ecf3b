import pytest

from uplift.fhir.versions import FhirVersion


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("R4", FhirVersion.R4),
        ("r4", FhirVersion.R4),
        ("4.0.1", FhirVersion.R4),
        ("4.0.0", FhirVersion.R4),
        ("4.0", FhirVersion.R4),
        (" stu3 ", FhirVersion.STU3),
        ("3.0.1", FhirVersion.STU3),
        ("3.0.2", FhirVersion.STU3),
        ("dstu2", FhirVersion.DSTU2),
        ("1.0.2", FhirVersion.DSTU2),
        ("4.3.0", None),
        ("R4B", None),
        ("R5", None),
        ("5.0.0", None),
        ("0.4", None),
        ("4", None),
        ("4.0.1.2", None),
        ("", None),
        ("\u0664.\u0660.\u0661", None),
    ],
)
def test_a_version_is_known_by_its_names_and_release_numbers(
    text: str, version: FhirVersion | None
) -> None:
    assert FhirVersion.parse(text) is version


def test_a_version_has_its_segment_of_1uphealths_addresses() -> None:
    assert [version.path for version in FhirVersion] == ["dstu2", "stu3", "r4"]
