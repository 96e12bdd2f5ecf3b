"""HL7's invariants that are cheap to check, by the keys of its StructureDefinitions.

Their words are R4's; https://hl7.org/fhir/R4/condition.html#invs has those of a type. Nothing here
expects a valid resource.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from uplift.fhir.document import JsonObject
from uplift.fhir.empties import has_content
from uplift.fhir.findings import Kind
from uplift.fhir.versions import FhirVersion

Path = tuple[str | int, ...]
Broken = Iterator[tuple[Kind, Path]]
"""The rules that are broken, each with the steps to the place."""

RULES: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.OBS_6: "dataAbsentReason is allowed only without a value",
        Kind.OBS_7: "a value is not allowed if a component has the code of the Observation",
        Kind.CON_1: "a stage has a summary or an assessment",
        Kind.CON_2: "an evidence has a code or details",
        Kind.CON_3: "clinicalStatus is required unless verificationStatus is entered-in-error "
        "(R4: of problem list items)",
        Kind.CON_4: "an abated condition is inactive, resolved or in remission",
        Kind.CON_5: "clinicalStatus is not allowed if verificationStatus is entered-in-error",
        Kind.AIT_1: "clinicalStatus is required unless verificationStatus is entered-in-error",
        Kind.AIT_2: "clinicalStatus is not allowed if verificationStatus is entered-in-error",
        Kind.DOM_2: "a contained resource contains no other",
        Kind.DOM_3: "a contained resource is referred to in the resource around it",
        Kind.REF_1: "a reference that begins with # names a contained resource",
        Kind.EXT_1: "an extension has either a value or extensions",
        Kind.ATT_1: "an attachment with data has a contentType",
    }
)
"""What each invariant demands."""

_ATTACHMENT = frozenset(
    {"id", "extension", "contentType", "language", "data", "url", "size", "hash", "title"}
    | {"creation", "fhir_comments"}
)
_ABATED = frozenset({"inactive", "resolved", "remission"})


# --- one object -----------------------------------------------------------------------------------


def broken_by_object(value: JsonObject, version: FhirVersion) -> Broken:
    """What an object breaks by itself. It may be a resource, an attachment or hold extensions."""
    for name in ("extension", "modifierExtension"):
        if name in value:
            yield from _extensions(value[name], name)
    if "data" in value and _is_attachment(value) and not has_content(value.get("contentType", "")):
        yield Kind.ATT_1, ()
    if "resourceType" in value and (check := _OF_TYPE.get(str(value["resourceType"]))):
        yield from check(value, version)


def _extensions(extensions: Any, name: str) -> Broken:
    for index, each in enumerate(extensions if isinstance(extensions, list) else ()):
        if isinstance(each, dict) and "url" in each:
            has_value = any(field.startswith(("value", "_value")) for field in each)
            if has_value == ("extension" in each):
                yield Kind.EXT_1, (name, index)


def _is_attachment(value: JsonObject) -> bool:
    """Other types have `data` too, but always beside elements that an Attachment lacks."""
    return all(name.removeprefix("_") in _ATTACHMENT for name in value)


# --- resources ------------------------------------------------------------------------------------


def _observation(resource: JsonObject, _: FhirVersion) -> Broken:
    if not any(name.startswith("value") for name in resource):
        return
    if "dataAbsentReason" in resource:
        yield Kind.OBS_6, ("dataAbsentReason",)
    own = _codings(resource.get("code"))
    components = _list(resource.get("component"))
    if own and any(own & _codings(_get(each, "code")) for each in components):
        yield Kind.OBS_7, ("component",)


def _condition(resource: JsonObject, version: FhirVersion) -> Broken:
    for index, stage in enumerate(_list(resource.get("stage"))):
        if isinstance(stage, dict) and not stage.keys() & {"summary", "assessment"}:
            yield Kind.CON_1, ("stage", index)
    for index, evidence in enumerate(_list(resource.get("evidence"))):
        if isinstance(evidence, dict) and not evidence.keys() & {"code", "detail"}:
            yield Kind.CON_2, ("evidence", index)
    if version is FhirVersion.DSTU2:
        return
    status = _codes(resource.get("clinicalStatus"))
    in_error = "entered-in-error" in _codes(resource.get("verificationStatus"))
    categories = {code for each in _list(resource.get("category")) for code in _codes(each)}
    listed = version is FhirVersion.STU3 or "problem-list-item" in categories
    if listed and not in_error and not resource.keys() & {"clinicalStatus", "_clinicalStatus"}:
        yield Kind.CON_3, ("clinicalStatus",)
    abated = any(name.startswith("abatement") for name in resource)
    if abated and resource.get("abatementBoolean") is not False and not status & _ABATED:
        yield Kind.CON_4, ("clinicalStatus",)
    if version is FhirVersion.R4 and in_error and "clinicalStatus" in resource:
        yield Kind.CON_5, ("clinicalStatus",)


def _allergy(resource: JsonObject, version: FhirVersion) -> Broken:
    if version is FhirVersion.DSTU2:
        return
    in_error = "entered-in-error" in _codes(resource.get("verificationStatus"))
    has_status = bool(resource.keys() & {"clinicalStatus", "_clinicalStatus"})
    if in_error and has_status:
        yield Kind.AIT_2, ("clinicalStatus",)
    if not in_error and not has_status:
        yield Kind.AIT_1, ("clinicalStatus",)


_OF_TYPE: Mapping[str, Callable[[JsonObject, FhirVersion], Broken]] = MappingProxyType(
    {"Observation": _observation, "Condition": _condition, "AllergyIntolerance": _allergy}
)


def _list(value: Any) -> list[Any]:
    """The items of an element that repeats in some versions only."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _codings(concept: Any) -> set[tuple[str, str]]:
    """System and code of the concept's codings."""
    return {
        (str(coding.get("system", "")), code)
        for coding in _list(_get(concept, "coding"))
        if isinstance(coding, dict) and isinstance(code := coding.get("code"), str)
    }


def _codes(value: Any) -> set[str]:
    """The codes of a status, which is a code until STU3 and a concept in R4."""
    return {value} if isinstance(value, str) else {code for _, code in _codings(value)}


# --- contained resources --------------------------------------------------------------------------


def refers_inside(value: JsonObject) -> bool:
    """Whether the object contains resources, or refers to one that should be contained."""
    reference = value.get("reference")
    return "contained" in value or (isinstance(reference, str) and reference.startswith("#"))


def broken_by_contained(resource: JsonObject) -> Broken:
    """What a resource breaks together with the resources that it contains."""
    contained = [
        (index, each)
        for index, each in enumerate(_list(resource.get("contained")))
        if isinstance(each, dict)
    ]
    ids = {each["id"] for _, each in contained if isinstance(each.get("id"), str)}
    named: set[str] = set()
    around: set[str] = set()  # steps of contained resources that refer to the resource around them
    for text, path in _local_texts(resource, ()):
        named.add(text[1:])
        if path[-1] == "reference" and text != "#" and text[1:] not in ids:
            yield Kind.REF_1, path
        if text == "#" and path[0] == "contained":
            around.add(str(path[1]))
    for index, each in contained:
        if "contained" in each:
            yield Kind.DOM_2, ("contained", index, "contained")
        if str(each.get("id")) not in named and str(index) not in around:
            yield Kind.DOM_3, ("contained", index)


def _local_texts(value: Any, path: Path) -> Iterator[tuple[str, Path]]:
    """Texts that begin with #, but not those of a resource in an entry: it has its own."""
    for step, child in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(child, str):
            if child.startswith("#"):
                yield child, (*path, step)
        elif isinstance(child, dict | list):
            own = isinstance(child, dict) and "resourceType" in child
            if not own or (len(path) and path[-1] == "contained"):
                yield from _local_texts(child, (*path, step))
