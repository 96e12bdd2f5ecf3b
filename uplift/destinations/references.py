"""Rewrites a record for a destination that knows it by a derived id. Pure.

The listed rules, and nothing else: its id, its original id as an identifier, and its literal
references. Numbers keep their digits, since FHIR's decimals have a precision; a whole `-0` is
written as `0`, the same number. What holds nothing counts as absent, as in validation.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from uplift.destinations.requests import RECORD_SYSTEM
from uplift.fhir.compiled import definition, resource_types
from uplift.fhir.empties import has_content
from uplift.fhir.versions import FhirVersion

Resource = dict[str, Any]

PATIENT = "Patient"
# Type/id at the end of a relative or absolute reference, with or without a version.
_LITERAL = re.compile(r"(?:^|/)([A-Z][A-Za-z]*)/([^/?#]+)(?:/_history/[^/?#]+)?/?$")
_PERSON_BY_SEARCH = re.compile(r"(?:^|/)Patient\?")
# The elements of a Reference: https://hl7.org/fhir/R4/references.html#Reference. Others have an
# element `reference` that is none: an Expression and a Provenance.entity have more than these.
_OF_REFERENCE = frozenset(
    {"id", "extension", "reference", "_reference", "type", "_type", "identifier", "display"}
    | {"_display"}
)
# These have nothing more, and are no Reference.
_NO_REFERENCE = frozenset({"education"})
# Of a clinical record, the first of these that its type has says whose it is.
_SUBJECTS = ("patient", "subject", "beneficiary", "subscriber")
_TO_PATIENT = re.compile(r"/Reference\((?:.*,)?Patient(?:,.*)?\)$")
_OF_NOBODY = frozenset({"Device", "Group", "Account", "Contract", "List", "Patient"})
_IDENTIFIER = "#/definitions/Identifier"
_URI_SYSTEM = "urn:ietf:rfc:3986"

_HOLDERS = (dict, list)

# What is a number is never reckoned with here, so it stays text. `Decimal` cannot hold every number
# of JSON: of 0e-9999999999999999999 it takes no exponent.
_DECODER = msgspec.json.Decoder(float_hook=msgspec.Raw)
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """How one record is rewritten.

    `own_id` is its id at the destination; None where the server chooses it, and then
    `record_identifier` finds it. `source_system` is the identifier system of its source's ids.
    `patient` is the reference to the person's Patient; None if references to the person stay.
    `targets` are the references to records that are at the destination, by their `Type/id`.
    """

    version: FhirVersion
    own_id: str | None
    source_system: str
    record_identifier: str | None = None
    patient: str | None = None
    targets: Mapping[str, str] = field(default_factory=dict)


def parse(body: bytes) -> Resource:
    """The resource of a validated body. Its decimals keep their digits."""
    parsed: Resource = _DECODER.decode(body)
    return parsed


def parse_with_references(body: bytes) -> tuple[Resource, list[Resource]]:
    """The resource of a validated body, and every literal Reference in it."""
    resource = parse(body)
    # Most have a few, and not deep inside. Behind the last one nothing needs to be looked at.
    named = None if b"\\u" in body else body.count(b'"reference"')
    return resource, _references(resource, named)


def write(resource: Resource) -> bytes:
    """The resource as JSON."""
    return _ENCODER.encode(resource)


def literal_targets(
    resource: Resource, references: list[Resource] | None = None, *, but_patient: bool
) -> frozenset[str]:
    """The `Type/id` of everything that the resource refers to, itself not.

    `references` are those in it, if they are known already. `but_patient`: references to a Patient
    are not among them.
    """
    own = _own_name(resource)
    if references is None:
        references = _references(resource)
    found = (_name_of(text) for each in references if (text := each.get("reference")) is not None)
    return frozenset(
        name
        for name in found
        if name is not None and name != own and not (but_patient and name.startswith(f"{PATIENT}/"))
    )


def rewritten(
    resource: Resource, rules: Rewriting, references: list[Resource] | None = None
) -> Resource:
    """The resource as the destination gets it. Changes `resource` itself, and returns it.

    `references` are those in it, if they are known already; one that it gets is added to them.
    """
    own = _own_name(resource)
    if references is None:
        references = _references(resource)
    for reference in references:
        _rewrite(reference, rules)
    if rules.patient is not None:
        references += _added_subject(resource, rules.version, rules.patient)
    resource.pop("id", None)
    if own is not None:
        _name(resource, rules.version, {"system": rules.source_system, "value": own})
    if rules.record_identifier is not None:
        identifier = {"system": RECORD_SYSTEM, "value": rules.record_identifier}
        _name(resource, rules.version, identifier)
    if rules.own_id is not None:
        resource["id"] = rules.own_id
    return resource


def found_by(resource: Resource, record_identifier: str) -> str:
    """The search parameter that finds a rewritten resource by its record identifier."""
    identifiers = resource.get("identifier")
    listed = identifiers if isinstance(identifiers, list) else [identifiers]
    ours = {"system": RECORD_SYSTEM, "value": record_identifier}
    return "identifier" if ours in listed else "_tag"


def may_be_found_by(version: FhirVersion, resource_type: str) -> tuple[str, ...]:
    """Which search parameters `found_by` may give for a resource of that type."""
    if resource_type not in resource_types(version):
        return ()
    element = definition(version, resource_type)["properties"].get("identifier", {})
    if element.get("items", {}).get("$ref") == _IDENTIFIER:
        return ("identifier",)
    return ("identifier", "_tag") if element.get("$ref") == _IDENTIFIER else ("_tag",)


def subject_element(version: FhirVersion, resource_type: str) -> str | None:
    """The element that says whose record of that type it is; None if it is nobody's."""
    if resource_type in _OF_NOBODY or resource_type not in resource_types(version):
        return None
    properties = definition(version, resource_type)["properties"]
    return next(
        (
            name
            for name in _SUBJECTS
            if _TO_PATIENT.search(properties.get(name, {}).get("$ref", ""))
        ),
        None,
    )


def _own_name(resource: Resource) -> str | None:
    own_id = resource.get("id")
    named = isinstance(own_id, str) and has_content(own_id)
    return f"{resource['resourceType']}/{own_id}" if named else None


def _references(resource: Resource, named: int | None = None) -> list[Resource]:
    """Every Reference in it that has a literal reference, also in contained resources.

    `named` is how many elements are called so at most; None: nobody knows.
    """
    found: list[Resource] = []
    pending: list[tuple[str, Any]] = [("", resource)]
    for name, value in pending:
        if named == 0:
            break
        if isinstance(value, list):
            pending += [(name, each) for each in value if isinstance(each, _HOLDERS)]
            continue
        if "reference" in value:
            named = None if named is None else named - 1
            if _is_literal(value, name):
                found.append(value)
        pending += [pair for pair in value.items() if isinstance(pair[1], _HOLDERS)]
    return found


def _is_literal(value: Resource, name: str) -> bool:
    reference = value["reference"]
    return (
        isinstance(reference, str)
        and has_content(reference)
        and value.keys() <= _OF_REFERENCE
        and name not in _NO_REFERENCE
        and not reference.startswith("#")
    )


def _name_of(reference: str) -> str | None:
    """`Type/id` of a literal reference; None if it does not name one."""
    found = _LITERAL.search(reference)
    return f"{found[1]}/{found[2]}" if found else None


def _rewrite(reference: Resource, rules: Rewriting) -> None:
    text = reference["reference"]
    name = _name_of(text)
    is_person = (name or "").startswith(f"{PATIENT}/") or bool(_PERSON_BY_SEARCH.search(text))
    if is_person and rules.patient is None:
        return
    known = rules.patient if is_person else rules.targets.get(name or "")
    if known is not None:
        reference["reference"] = known
        return
    # Logical: what it names is not there, and some servers take no reference to nothing. HAPI takes
    # none of a new resource to itself (HAPI-1094).
    del reference["reference"]
    reference.pop("_reference", None)
    if rules.version is FhirVersion.DSTU2:
        reference.setdefault("display", text)
        return
    system = rules.source_system if name is not None else _URI_SYSTEM
    reference.setdefault("identifier", {"system": system, "value": name or text})
    if rules.version is FhirVersion.R4 and name is not None:
        reference.setdefault("type", name.partition("/")[0])


def _added_subject(resource: Resource, version: FhirVersion, patient: str) -> list[Resource]:
    """A record without a subject would belong to nobody. The Reference that is added."""
    element = subject_element(version, resource["resourceType"])
    if element is None:
        return []
    if not has_content(resource.get(element, "")):
        resource[element] = {}
    subject = resource[element]
    if not isinstance(subject, dict) or has_content(subject.get("reference", "")):
        return []
    subject["reference"] = patient
    return [subject]


def _name(resource: Resource, version: FhirVersion, identifier: dict[str, str]) -> None:
    """Add an identifier: to a list, or where there is room for one, else as a tag."""
    properties = definition(version, resource["resourceType"])["properties"]
    element = properties.get("identifier", {})
    is_list = element.get("items", {}).get("$ref") == _IDENTIFIER
    is_one = element.get("$ref") == _IDENTIFIER
    if is_list:
        _append(resource, "identifier", identifier)
    elif is_one and not has_content(resource.get("identifier", "")):
        resource["identifier"] = identifier
    else:
        tag = {"system": identifier["system"], "code": identifier["value"]}
        if not has_content(resource.get("meta", "")):
            resource["meta"] = {}
        _append(resource["meta"], "tag", tag)


def _append(parent: Resource, name: str, value: dict[str, str]) -> None:
    if not has_content(parent.get(name, "")):
        parent[name] = []
    if value not in parent[name]:
        parent[name].append(value)
