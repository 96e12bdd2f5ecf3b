"""Whether a stored resource has the content that we sent. Pure.

A server changes what it stores. This is the list of what counts as the server's own:

* `id` and `meta` (https://hl7.org/fhir/resource.html#Meta);
* more identifiers of the resource than ours;
* more extensions than ours, on any element;
* a narrative with the status `generated`, where we sent none;
* the namespace on a narrative's `div`;
* a reference that names the same type: servers rewrite the rest to ids and addresses of theirs.

Everything else must be equal, in both directions: what the server lacks counts like what it has
more. Otherwise an update that only removes an element would be found in the version before it.
"""

import re
from collections.abc import Mapping
from typing import Any

from uplift.identity import canonical

_SERVERS_OWN = frozenset({"id", "meta"})
# Anchored, so that no text of a narrative makes it slow.
_XMLNS = re.compile(r"""^(\s*<div(?:\s[^>]*)?)\sxmlns=(?:"[^"]*"|'[^']*')""")
# Type/id at the end of a relative or absolute reference, with or without a version.
_REFERENCE = re.compile(r"(?:^|/)([A-Z][A-Za-z]*)/[^/?#]+(?:/_history/[^/?#]+)?$")
_NONE: Any = object()  # an element that is not there; JSON's null is None


def same_content(ours: Any, stored: Any, *, exactly: bool = False) -> bool:
    """Whether `stored` is `ours` with nothing but what servers add.

    `exactly` allows for `id`, `meta` and the spelling of numbers alone.
    """
    if not isinstance(ours, dict) or not isinstance(stored, dict):
        return False
    ours, stored = _content(ours), _content(stored)
    try:
        if canonical(ours) == canonical(stored):
            return True
    except ValueError:
        return False  # nested deeper than anything that Uplift accepts
    return not exactly and _same_resource(ours, stored)


def _content(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name not in _SERVERS_OWN}


def _same_resource(ours: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    rest = _SERVERS_OWN
    if "text" not in ours and _is_generated(stored.get("text")):
        rest |= {"text"}
    if isinstance(stored.get("identifier"), list):
        if not _has_all(ours.get("identifier", []), stored["identifier"]):
            return False
        rest |= {"identifier"}
    elif "identifier" not in ours and isinstance(stored.get("identifier"), dict):
        rest |= {"identifier"}  # of the few types that have one at most
    return _same_object(
        {name: value for name, value in ours.items() if name not in rest},
        {name: value for name, value in stored.items() if name not in rest},
    )


def _is_generated(narrative: Any) -> bool:
    return isinstance(narrative, dict) and narrative.get("status") == "generated"


def _same(ours: Any, stored: Any) -> bool:
    if isinstance(ours, dict):
        return isinstance(stored, dict) and _same_object(ours, stored)
    if isinstance(ours, list):
        return (
            isinstance(stored, list) and len(ours) == len(stored) and all(map(_same, ours, stored))
        )
    # Python's True is 1, JSON's is not.
    return isinstance(ours, bool) is isinstance(stored, bool) and bool(ours == stored)


def _same_object(ours: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    return all(
        _same_element(name, ours.get(name, _NONE), stored.get(name, _NONE))
        for name in ours.keys() | stored.keys()
    )


def _same_element(name: str, ours: Any, stored: Any) -> bool:
    if name == "extension" and isinstance(stored, list):
        return _has_all([] if ours is _NONE else ours, stored)
    if name.startswith("_") and stored is not _NONE:
        return _same_primitive(ours, stored)
    if ours is _NONE or stored is _NONE:
        return False
    if isinstance(ours, str) and isinstance(stored, str) and ours != stored:
        match name:
            case "reference":
                return _same_reference(ours, stored)
            case "div":
                return _XMLNS.sub(r"\1", stored) == ours
    return _same(ours, stored)


def _same_primitive(ours: Any, stored: Any) -> bool:
    """Compare the id and the extensions of a primitive, or of each one in a list.

    https://hl7.org/fhir/json.html#primitive
    """
    if isinstance(stored, list):
        ours = [None] * len(stored) if ours is _NONE else ours
        return (
            isinstance(ours, list)
            and len(ours) == len(stored)
            and all(map(_same_primitive, ours, stored))
        )
    if isinstance(stored, dict):
        return _same({} if ours is _NONE or ours is None else ours, stored)
    return ours is not _NONE and _same(ours, stored)


def _has_all(ours: Any, stored: list[Any]) -> bool:
    """Whether a list holds all of ours, in our order, with others before, between or behind."""
    if not isinstance(ours, list):
        return False
    following = iter(stored)
    return all(any(_same(item, candidate) for candidate in following) for item in ours)


def _same_reference(ours: str, stored: str) -> bool:
    rewritten = _REFERENCE.search(stored)
    if rewritten is None or ours.startswith("#"):
        return False
    if ours.startswith("urn:"):
        return True  # it names no type: https://hl7.org/fhir/references.html#literal
    named = _REFERENCE.search(ours)
    return named is not None and named[1] == rewritten[1]
