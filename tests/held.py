"""What a FHIR server holds after the example export was pushed to it."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import httpx

from tests.real_server import CHANGED, Exports, Resource
from uplift.destinations.references import parse
from uplift.destinations.requests import USER_SYSTEM

_SOURCE_SYSTEM = "urn:uplift:source:"


def assert_each_is_there_once(
    base: str,
    exports: Exports,
    fhir_version: str,
    headers: Mapping[str, str] | None = None,
    *,
    but: Collection[str] = (),
) -> list[Resource]:
    """Each record in its last version, and the one Patient that they are about.

    Returns them. `but` are others, by their `Type/id`.
    """
    relayed = exports.valid(fhir_version)
    found = held_by(base, types_of(exports, fhir_version), headers or {}, but=but)
    (person,) = [each for each in found if is_person(each)]
    records = [each for each in found if original_names(each)]
    names = {f"{each.resource_type}/{each.record_id}" for each in relayed}
    assert Counter(name for each in records for name in original_names(each)) == dict.fromkeys(
        names, 1
    )
    assert len(records) == len(relayed)
    assert all(each.get("language") == CHANGED for each in records)
    about = {
        reference
        for each in records
        for reference in literal_references(each)
        if reference.startswith("Patient/")
    }
    assert about == {f"Patient/{person['id']}"}
    return found


def assert_nothing_is_there(
    base: str,
    ids: Mapping[str, set[str]],
    headers: Mapping[str, str] | None = None,
    *,
    but: Collection[str] = (),
) -> None:
    """No search finds anything of these types but that, and no read finds any of these ids."""
    assert held_by(base, set(ids), headers or {}, but=but) == []
    with httpx.Client(
        headers={"Accept": "application/fhir+json", **(headers or {})}, timeout=60, trust_env=False
    ) as client:
        answers = {
            f"{type_}/{id_}": client.get(f"{base}/{type_}/{id_}").status_code
            for type_, those in ids.items()
            for id_ in those
        }
    assert set(answers.values()) <= {404, 410}, answers


def types_of(exports: Exports, fhir_version: str) -> set[str]:
    """The types of the export that a server of that version has then, and Patient."""
    return {each.resource_type for each in exports.valid(fhir_version)} | {"Patient"}


def ids_at(
    base: str,
    exports: Exports,
    fhir_version: str,
    headers: Mapping[str, str] | None = None,
    *,
    but: Collection[str] = (),
) -> dict[str, set[str]]:
    """The ids that the server has, by their types: of the export's types and of Patient."""
    found: dict[str, set[str]] = {type_: set() for type_ in types_of(exports, fhir_version)}
    for each in held_by(base, set(found), headers or {}, but=but):
        found[each["resourceType"]].add(each["id"])
    return found


def name_of(resource: Resource) -> str:
    """Its `Type/id` at the server."""
    return f"{resource['resourceType']}/{resource['id']}"


def held_by(
    base: str, types: set[str], headers: Mapping[str, str], *, but: Collection[str] = ()
) -> list[Resource]:
    """Every resource of these types at a server, past every page and every cache.

    Numbers keep their digits. `but` are left out, by their `Type/id`.
    """
    found: list[Resource] = []
    with httpx.Client(
        headers={"Cache-Control": "no-cache", "Accept": "application/fhir+json", **headers},
        timeout=60,
        trust_env=False,
    ) as client:
        for type_ in sorted(types):
            page: str | None = f"{base}/{type_}?_count=200"
            while page is not None:
                bundle = parse(client.get(page).raise_for_status().content)
                found += [entry["resource"] for entry in bundle.get("entry", ())]
                links = {link["relation"]: link["url"] for link in bundle["link"]}
                page = links.get("next")
    return [each for each in found if name_of(each) not in but]


def original_names(resource: Resource) -> list[str]:
    """`Type/id` of the record as the hospital names it, as often as the resource carries it."""
    identifiers = resource.get("identifier", [])
    named = identifiers if isinstance(identifiers, list) else [identifiers]
    tags = resource.get("meta", {}).get("tag", [])
    return [
        each.get("value") or each["code"]
        for each in [*named, *tags]
        if str(each.get("system", "")).startswith(_SOURCE_SYSTEM)
    ]


def is_person(resource: Resource) -> bool:
    """Whether it is the Patient that stands for a user."""
    return resource["resourceType"] == "Patient" and any(
        each.get("system") == USER_SYSTEM for each in resource.get("identifier", ())
    )


def literal_references(value: Any) -> Iterator[str]:
    """Every reference in a resource that a server resolves."""
    if isinstance(value, list):
        for each in value:
            yield from literal_references(each)
    elif isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for each in value.values():
            yield from literal_references(each)
