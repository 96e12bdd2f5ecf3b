"""Whose is what a shared server answers? Pure.

Where the deployment logs in once, its token opens everybody's resources. So a search asks for those
of one person, and what comes back is passed on only if all of it leads to that person's Patient.
"""

from dataclasses import replace
from typing import Any

import msgspec

from uplift.fhir.interactions import Interaction


def confined(interaction: Interaction, patient: str) -> Interaction:
    """The interaction, for the person whose Patient has this id.

    The parameter is added: FHIR has all of them hold (https://hl7.org/fhir/R4/search.html#combining).
    """
    if not interaction.paged or not interaction.path or "/" in interaction.path:
        return interaction
    name = "_id" if interaction.path == "Patient" else "patient"
    query = f"{interaction.query}&" if interaction.query else ""
    return replace(interaction, query=f"{query}{name}={patient}")


def is_all_of(content: bytes, interaction: Interaction, patient: str) -> bool:
    """Whether the resource, or each resource of the page, is that Patient or refers to it."""
    if interaction.path == f"Patient/{patient}/$everything":
        return True
    try:
        if not interaction.paged:
            return _is_of(content, patient)
        page = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        entries = msgspec.json.decode(page.get("entry", b"[]"), type=list[dict[str, msgspec.Raw]])
        # An entry without a resource is the deletion of one, in a history.
        return all(
            _is_of(bytes(each["resource"]), patient) for each in entries if "resource" in each
        )
    except (ValueError, RecursionError):
        return False


def _is_of(resource: bytes, patient: str) -> bool:
    # Ids of Patients are derived with a key: nobody else can have a value that ends so.
    if f'Patient/{patient}"'.encode() in resource:
        return True
    found: dict[str, Any] = msgspec.json.decode(resource, type=dict[str, Any])
    kind = found.get("resourceType")
    return (kind == "Patient" and found.get("id") == patient) or kind == "OperationOutcome"
