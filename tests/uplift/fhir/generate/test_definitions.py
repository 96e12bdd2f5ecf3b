import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from uplift.fhir.generate.definitions import Definitions
from uplift.fhir.versions import FhirVersion

SNAPSHOT: dict[str, Any] = {"snapshot": {"element": []}, "abstract": False}


def structure(name: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "StructureDefinition", "id": name, **SNAPSHOT, **more}


def read(folder: Path, version: FhirVersion, *resources: dict[str, Any]) -> Definitions:
    held = folder / version.path
    held.mkdir()
    for resource in resources:
        name = f"{resource['resourceType']}-{resource['id']}.json"
        (held / name).write_text(json.dumps(resource))
    return Definitions.read(folder, version)


@pytest.mark.parametrize(
    ("version", "resources"),
    [
        (
            FhirVersion.R4,
            [
                structure("Goal", kind="resource", derivation="specialization", type="Goal"),
                structure("vitalsigns", kind="resource", derivation="constraint", type="Goal"),
                structure("race", kind="complex-type", derivation="constraint", type="Extension"),
                structure(
                    "SimpleQuantity", kind="complex-type", derivation="constraint", type="Quantity"
                ),
                structure("model", kind="logical", type="model"),
            ],
        ),
        (
            FhirVersion.DSTU2,
            [
                structure("Goal", kind="resource"),
                structure("cholesterol", kind="resource", constrainedType="Goal"),
                structure("race", kind="datatype", constrainedType="Extension"),
                structure("SimpleQuantity", kind="datatype", constrainedType="Quantity"),
            ],
        ),
    ],
)
def test_profiles_are_no_types_but_simple_quantity_is(
    tmp_path: Path, version: FhirVersion, resources: list[dict[str, Any]]
) -> None:
    definitions = read(tmp_path, version, *resources)
    assert set(definitions.structures) == {"Goal", "SimpleQuantity"}
    assert definitions.resource_types == {"Goal"}


def test_a_package_of_hl7_is_read_as_it_comes(tmp_path: Path) -> None:
    unpacked = tmp_path / "StructureDefinition-Goal.json"
    unpacked.write_text(json.dumps(structure("Goal", kind="resource")))
    with tarfile.open(tmp_path / "r4.tgz", "w:gz") as package:
        package.add(unpacked, "package/StructureDefinition-Goal.json")
        package.add(unpacked, "package/package.json")
    assert Definitions.read(tmp_path, FhirVersion.R4).resource_types == {"Goal"}


def test_a_code_system_that_is_not_complete_is_not_used(tmp_path: Path) -> None:
    fragment = {"resourceType": "CodeSystem", "id": "a", "url": "urn:a", "content": "fragment"}
    assert read(tmp_path, FhirVersion.R4, fragment).code_systems == {}
