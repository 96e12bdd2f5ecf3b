"""Searches and their pages."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from uplift.sandbox.store import Shelf, StoredResource, StoredVersion

DEFAULT_PAGE = 10
LARGEST_PAGE = 100

Query = Sequence[tuple[str, str]]
_Found = tuple[StoredResource, StoredVersion]


def search(shelf: Shelf, query: Query, url: str, now: float) -> dict[str, Any]:
    """One page of a type's resources, as far as the index has them at `now`.

    Knows `_id`, `identifier` and `patient`, several values by comma, and repeated parameters as
    "and"; `_sort` by `_id` and `_lastUpdated`; and `_total`.
    Raises ValueError for any other parameter: a search that ignores one finds too much.
    """
    candidates: set[str] | None = None
    tests: list[Callable[[_Found], bool]] = []
    for name, value in query:
        options = value.split(",")
        match name:
            case "_id":
                candidates = set(options) if candidates is None else candidates & set(options)
            case "identifier":
                tests.append(_has_identifier(options))
            case "patient":
                tests.append(_has_patient(options))
            case "_count" | "_skip" | "_format" | "_sort" | "_sort:asc" | "_sort:desc" | "_total":
                pass
            case _:
                raise ValueError(f"The search parameter {name} is not simulated")
    if candidates is None:
        exact = [value for name, value in query if name == "identifier" and "," not in value]
        candidates = _by_identifier(shelf, exact[0]) if exact else None
    ids = shelf.resources if candidates is None else sorted(candidates & shelf.resources.keys())
    found = [
        (resource, version)
        for resource in (shelf.resources[id_] for id_ in ids)
        if (version := resource.seen_by_search(now)) is not None
        and all(test((resource, version)) for test in tests)
    ]
    for key, descending in reversed(_sorting(query)):
        found.sort(key=_SORT_KEYS[key], reverse=descending)
    base = url.rpartition("/")[0]
    return _page(found, query, url, base, _number(query, "_count", DEFAULT_PAGE, least=1))


def everything(
    resources: Sequence[StoredResource], query: Query, url: str, base: str
) -> dict[str, Any]:
    """One page of ten of these resources."""
    found = [(resource, resource.latest) for resource in resources]
    return _page(found, query, url, base, DEFAULT_PAGE)


def _page(found: list[_Found], query: Query, url: str, base: str, count: int) -> dict[str, Any]:
    count = min(count, LARGEST_PAGE)
    skip = _number(query, "_skip", 0, least=0)
    links = [{"relation": "self", "url": _link(url, query)}]
    if skip + count < len(found):
        kept = [(name, value) for name, value in query if name != "_skip"]
        links.append({"relation": "next", "url": _link(url, [*kept, ("_skip", str(skip + count))])})
    total = dict(query).get("_total", "accurate")
    if total not in ("none", "estimate", "accurate"):
        raise ValueError("_total must be none, estimate or accurate")
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        **({"total": len(found)} if total != "none" else {}),
        "link": links,
        "entry": [
            {
                "fullUrl": f"{base}/{resource.resource_type}/{resource.id}",
                "resource": resource.as_stored(version),
                "search": {"mode": "match"},
            }
            for resource, version in found[skip : skip + count]
        ],
    }


_SORT_KEYS: dict[str, Callable[[_Found], Any]] = {
    "_id": lambda found: found[0].id,
    "_lastUpdated": lambda found: found[1].last_updated,
}


def _sorting(query: Query) -> list[tuple[str, bool]]:
    """What to sort by, first key first, and whether descending.

    `_sort=-_lastUpdated,_id` since STU3, `_sort:desc=_lastUpdated` in DSTU2.
    """
    keys: list[tuple[str, bool]] = []
    for name, value in query:
        match name:
            case "_sort":
                keys += [(key.removeprefix("-"), key.startswith("-")) for key in value.split(",")]
            case "_sort:asc" | "_sort:desc":
                keys.append((value, name == "_sort:desc"))
    for key, _ in keys:
        if key not in _SORT_KEYS:
            raise ValueError(f"Sorting by {key} is not simulated")
    return keys


def _link(url: str, query: Query) -> str:
    return f"{url}?{urlencode(query)}" if query else url


def _number(query: Query, name: str, default: int, *, least: int) -> int:
    text = dict(query).get(name)
    if text is None:
        return default
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{name} must be a whole number from {least} up")
    return int(text)


def _has_identifier(options: list[str]) -> Callable[[_Found], bool]:
    """FHIR's token search: `system|value`, `|value` without a system, `system|`, or `value`."""

    def matches(found: _Found) -> bool:
        return any(
            _token_matches(option, system, value)
            for option in options
            for system, value in found[1].identifiers
        )

    return matches


def _has_patient(options: list[str]) -> Callable[[_Found], bool]:
    """FHIR's reference search: an id, `Patient/id`, or an address that ends so."""
    wanted = {
        id_
        for base, _, id_ in (option.rpartition("/") for option in options)
        if not base or base.endswith("Patient")
    }
    return lambda found: bool(found[1].patients & wanted)


def _token_matches(option: str, system: str, value: str) -> bool:
    wanted_system, bar, wanted_value = option.partition("|")
    if not bar:
        return option == value
    if not wanted_value:
        return wanted_system == system
    return (wanted_system, wanted_value) == (system, value)


def _by_identifier(shelf: Shelf, option: str) -> set[str] | None:
    """Ids that ever carried this identifier, where the index can tell."""
    system, bar, value = option.partition("|")
    return shelf.by_identifier.get((system, value), set()) if bar and value else None
