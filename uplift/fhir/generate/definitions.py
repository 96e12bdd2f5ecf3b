"""Reading HL7's definitions from a folder or an archive."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uplift.errors import ConfigurationError
from uplift.fhir.versions import FhirVersion

Resource = dict[str, Any]

_WANTED = ("StructureDefinition-", "ValueSet-", "CodeSystem-")


@dataclass(slots=True)
class Definitions:
    """The definitions of one version: structures by type, value sets and code systems by URL."""

    version: FhirVersion
    structures: dict[str, Resource] = field(default_factory=dict)
    value_sets: dict[str, Resource] = field(default_factory=dict)
    code_systems: dict[str, Resource] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, version: FhirVersion) -> "Definitions":
        """The definitions in `folder`: a folder `r4`, or `r4.tar.gz`, or HL7's package as `r4.tgz`.

        Raises ConfigurationError where there is none.
        """
        definitions = cls(version)
        for resource in _resources(folder, version):
            definitions._add(resource)
        return definitions

    def _add(self, resource: Resource) -> None:
        match resource["resourceType"]:
            case "StructureDefinition" if _is_type(resource):
                self.structures[resource["id"]] = resource
            case "ValueSet":
                self.value_sets[resource["url"]] = resource
                # DSTU2 has no CodeSystem resource: a value set defines codes inline.
                if system := resource.get("codeSystem"):
                    self.code_systems[system["system"]] = system
            case "CodeSystem" if resource.get("content") == "complete":
                self.code_systems[resource["url"]] = resource

    @property
    def resource_types(self) -> frozenset[str]:
        """Every concrete resource type of the version."""
        return frozenset(
            name
            for name, structure in self.structures.items()
            if structure["kind"] == "resource" and not structure["abstract"]
        )


def _is_type(structure: Resource) -> bool:
    """Profiles and extensions are left out, but not SimpleQuantity and its like: types by profile.

    STU3 and R4 call those constraints on Quantity; DSTU2 calls them constrained types, and Age,
    Count, Distance, Duration and Money are among them.
    """
    if "snapshot" not in structure:
        return False
    if constrained := structure.get("constrainedType"):
        return bool(constrained == "Quantity")
    if structure.get("derivation") == "constraint":
        return bool(structure.get("type") == "Quantity")
    return bool(structure["kind"] != "logical")


def _resources(folder: Path, version: FhirVersion) -> Iterator[Resource]:
    name = version.path
    if (folder / name).is_dir():
        for path in sorted((folder / name).rglob("*.json")):
            if path.name.startswith(_WANTED):
                yield json.loads(path.read_bytes())
        return
    for archive in (folder / f"{name}.tar.gz", folder / f"{name}.tgz"):
        if archive.is_file():
            with tarfile.open(archive) as tar:
                for member in tar:
                    if member.isfile() and Path(member.name).name.startswith(_WANTED):
                        content = tar.extractfile(member)
                        if content is not None:
                            yield json.loads(content.read())
            return
    raise ConfigurationError(
        f"No FHIR definitions of {version} in {folder}: put HL7's there as {name}.tgz, or unpacked "
        f"as a folder {name}."
    )
