"""Referential integrity: a literal reference must lead to a resource that is there.

As in HAPI, references inside contained resources and extensions are not looked at.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from uplift.sandbox.servers.outcomes import Refusal
from uplift.sandbox.servers.profile import Profile

_LITERAL = re.compile(r"([A-Z][A-Za-z]*)/([A-Za-z0-9\-.]{1,64})(?:/_history/[^/]+)?")
_NOT_LOOKED_AT = ("contained", "extension", "modifierExtension")
_TARGETS = {"patient": frozenset({"Patient"}), "encounter": frozenset({"Encounter"})}
"""Elements whose name says which types they may lead to."""

State = Callable[[str, str], str]
"""From a type and an id to `there`, `deleted` or `unknown`."""
Matches = Callable[[str, str], int]
"""From a type and a query to how many resources it finds."""


def check_references(
    resource: dict[str, Any], state: State, matches: Matches, profile: Profile
) -> None:
    """Raise Refusal for the first reference that the server does not take."""
    for path, name, reference in _references(resource, resource["resourceType"]):
        if reference.startswith("#"):
            continue
        if profile.external_references and ":" in reference:
            continue
        if reference.startswith(("http://", "https://")):
            raise Refusal(
                400,
                f'HAPI-0507: Resource contains external reference to URL "{reference}" but this '
                "server is not configured to allow external references",
            )
        by_query = reference.partition("?")
        if by_query[1]:
            if matches(by_query[0], by_query[2]) == 0:
                raise Refusal(
                    404,
                    f'HAPI-1091: Invalid match URL "{reference}" - No resources match this search',
                )
            continue
        type_, id_ = _target(path, reference)
        if type_ not in _TARGETS.get(name, {type_}):
            raise Refusal(
                422,
                f"HAPI-0931: Invalid reference found at path '{path}'. "
                f"Resource type '{type_}' is not valid for this path",
            )
        match state(type_, id_):
            case "unknown":
                raise Refusal(
                    profile.dangling,
                    f"HAPI-1094: Resource {type_}/{id_} not found, specified in path: {path}",
                )
            case "deleted":
                raise Refusal(
                    profile.dangling,
                    f"HAPI-1096: Resource {type_}/{id_} is deleted, specified in path: {path}",
                )


def _target(path: str, reference: str) -> tuple[str, str]:
    literal = _LITERAL.fullmatch(reference)
    if literal is None:
        raise Refusal(
            400,
            f"HAPI-0505: Invalid resource reference found at path[{path}] - "
            f"Does not contain resource type - {reference}",
        )
    return literal[1], literal[2]


def leads_to(resource: dict[str, Any], target: str) -> bool:
    """Whether a resource has a reference to `Type/id`."""
    return any(
        reference.partition("/_history/")[0] == target
        for _, _, reference in _references(resource, "")
    )


def _references(element: dict[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    for name, value in element.items():
        if name in _NOT_LOOKED_AT:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                if isinstance(child.get("reference"), str):
                    yield f"{path}.{name}", name, child["reference"]
                yield from _references(child, f"{path}.{name}")
