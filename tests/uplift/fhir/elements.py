"""What stands where in an example, read from HL7's StructureDefinitions.

Apart from uplift.fhir.generate, so that the mutants do not share its mistakes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.uplift.fhir.published import structures
from uplift.fhir.versions import FhirVersion

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Element:
    """One named element of a JSON object."""

    name: str
    type: str
    """A type's name, or the path of the element that describes the children."""
    many: bool
    required: bool
    choice: str | None
    """The name before [x]."""
    bound: bool
    targets: frozenset[str]

    @property
    def primitive(self) -> bool:
        return self.type[0].islower()


@dataclass(frozen=True)
class Site:
    """A value in a document, and what the definitions say about it."""

    path: Path
    element: Element
    value: Any
    holder: dict[str, Any]
    holder_type: str
    item: bool
    """Whether this is one item of a repeating element, not the array."""


@cache
def elements(version: FhirVersion, of: str) -> dict[str, Element]:
    """The elements of a type, or of the element at a path, by their name in JSON."""
    structure = structures(version)[of.partition(".")[0]]["snapshot"]["element"]
    root = structure[0]["path"]
    parent = of if "." in of else root
    found: dict[str, Element] = {}
    for described in structure:
        path = described["path"]
        if path.rpartition(".")[0] != parent or described["max"] == "0":
            continue
        name = path.rpartition(".")[2]
        has_children = any(other["path"].startswith(f"{path}.") for other in structure)
        for kind in _kinds(described, structure, has_children):
            spelled = name.replace("[x]", kind[0].upper() + kind[1:])
            found[spelled] = Element(
                name=spelled,
                type=path if has_children else kind,
                many=described["max"] != "1",
                required=described["min"] > 0,
                choice=name.removesuffix("[x]") if name.endswith("[x]") else None,
                bound=described.get("binding", {}).get("strength") == "required",
                targets=_targets(described),
            )
    return found


def _kinds(described: dict[str, Any], structure: list[dict[str, Any]], has_children: bool) -> Any:
    link = described.get("contentReference") or described.get("nameReference")
    if link:
        return [
            other["path"]
            for other in structure
            if link.removeprefix("#") in (other.get("id"), other.get("name"))
        ][:1]
    if has_children:
        return [described["path"]]
    codes = [
        kind["code"].removeprefix("http://hl7.org/fhirpath/System.") for kind in described["type"]
    ]
    return ["string" if code == "String" else code for code in dict.fromkeys(codes)]


def _targets(described: dict[str, Any]) -> frozenset[str]:
    names: set[str] = set()
    for kind in described.get("type", []):
        if kind["code"] == "Reference":
            profiles = kind.get("targetProfile", kind.get("profile", "Resource"))
            for profile in [profiles] if isinstance(profiles, str) else profiles:
                names.add(profile.rpartition("/")[2])
    return frozenset() if "Resource" in names else frozenset(names)


def sites(version: FhirVersion, resource: dict[str, Any], path: Path = ()) -> Iterator[Site]:
    """Every value of a resource and of what it contains."""
    yield from _sites(version, resource, resource["resourceType"], path)


def _sites(version: FhirVersion, holder: dict[str, Any], of: str, path: Path) -> Iterator[Site]:
    known = elements(version, of)
    for name, value in holder.items():
        if (element := known.get(name)) is None:
            continue
        here = (*path, name)
        yield Site(here, element, value, holder, of, item=False)
        values = enumerate(value) if element.many else [(None, value)]
        for index, item in values:
            there = here if index is None else (*here, index)
            if index is not None:
                yield Site(there, element, item, holder, of, item=True)
            if isinstance(item, dict):
                if element.type == "Resource":
                    yield from sites(version, item, there)
                else:
                    yield from _sites(version, item, element.type, there)
