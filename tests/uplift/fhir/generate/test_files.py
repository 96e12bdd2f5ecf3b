from pathlib import Path

import pytest

from tests.uplift.fhir.published import DEFINITIONS, needs_definitions
from uplift.errors import ConfigurationError
from uplift.fhir.compiled import SCHEMA_FOLDER, schema_file
from uplift.fhir.generate.definitions import Definitions
from uplift.fhir.generate.files import generated, write_schemas
from uplift.fhir.versions import FhirVersion


@needs_definitions
@pytest.mark.parametrize("version", FhirVersion)
def test_the_committed_schema_is_what_the_generator_makes(version: FhirVersion) -> None:
    committed = (SCHEMA_FOLDER / schema_file(version)).read_bytes()
    assert generated(DEFINITIONS, version) == committed, (
        f"Run python -m uplift.fhir.generate {DEFINITIONS}"
    )


@needs_definitions
def test_the_generator_writes_a_file_for_each_version(tmp_path: Path) -> None:
    written = list(write_schemas(DEFINITIONS, into=tmp_path))
    assert [path.name for path in written] == [schema_file(version) for version in FhirVersion]


def test_the_schemas_stay_small_enough_to_be_committed() -> None:
    sizes = [path.stat().st_size for path in SCHEMA_FOLDER.iterdir()]
    assert sum(sizes) < 3_000_000


def test_a_folder_without_definitions_is_a_clear_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"put HL7's there as r4\.tgz"):
        Definitions.read(tmp_path, FhirVersion.R4)
