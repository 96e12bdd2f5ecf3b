"""Whose is what a shared server answers? Pure.

Where the deployment logs in once, its token opens everybody's resources. So a search asks for those
of one person, and what comes back is passed on only if all of it is of that person's Patient. A
Patient that a backend named may have the id 1: text that looks like a reference proves nothing.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import msgspec

from uplift.fhir.interactions import Interaction

_PATIENT = "Patient"
_TO_PATIENT = re.compile(r"(?:^|/)Patient/[^/]+$")
_NOTHING = msgspec.Raw(b"null")


class _Found(msgspec.Struct):
    """What says whose a resource is. The first of these elements that is there counts."""

    type: str = msgspec.field(name="resourceType", default="")
    id: str = ""
    patient: msgspec.Raw = _NOTHING
    subject: msgspec.Raw = _NOTHING
    beneficiary: msgspec.Raw = _NOTHING
    subscriber: msgspec.Raw = _NOTHING


def confined(interaction: Interaction, patient: str) -> Interaction:
    """The interaction, for the person whose Patient has this id.

    The parameter is added: FHIR has all of them hold (https://hl7.org/fhir/R4/search.html#combining).
    """
    if not interaction.paged or not interaction.path or "/" in interaction.path:
        return interaction
    name = "_id" if interaction.path == "Patient" else "patient"
    query = f"{interaction.query}&" if interaction.query else ""
    return replace(interaction, query=f"{query}{name}={patient}")


def is_all_of(
    content: bytes, interaction: Interaction, patient: str, bases: Collection[str]
) -> bool:
    """Whether the resource, or each resource of the page, is that Patient or is theirs.

    `bases` are the server's own addresses: below another one, the same id is somebody else's.
    """
    if interaction.path == f"{_PATIENT}/{patient}/$everything":
        return True
    local = f"{_PATIENT}/{patient}"
    names = frozenset((local, *(f"{base}/{local}" for base in bases)))
    try:
        if not interaction.paged:
            return _is_of(content, patient, names)
        page = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        entries = msgspec.json.decode(page.get("entry", b"[]"), type=list[dict[str, msgspec.Raw]])
        # An entry without a resource is the deletion of one, in a history.
        return all(
            _is_of(bytes(each["resource"]), patient, names)
            for each in entries
            if "resource" in each
        )
    except (ValueError, RecursionError):
        return False


def _is_of(resource: bytes, patient: str, names: frozenset[str]) -> bool:
    """Whose it is, its own element says. Where none does, it must lead to no other Patient.

    That somebody's record mentions a person does not make it theirs.
    """
    found = msgspec.json.decode(resource, type=_Found)
    if found.type == _PATIENT:
        return found.id == patient
    if found.type == "OperationOutcome":
        return True
    for element in (found.patient, found.subject, found.beneficiary, found.subscriber):
        if owners := list(_references(msgspec.json.decode(element))):
            return names.issuperset(owners)
    named = _references(msgspec.json.decode(resource))
    patients = {each for each in named if _TO_PATIENT.search(each)}
    return bool(patients) and patients <= names


def _references(value: Any) -> Iterator[str]:
    """Every literal reference in it, without its version."""
    if isinstance(value, list):
        for each in value:
            yield from _references(each)
    elif isinstance(value, dict):
        reference = value.get("reference")
        if isinstance(reference, str):
            yield reference.partition("/_history/")[0]
        for each in value.values():
            yield from _references(each)
