"""What to ask 1upHealth about an upload that it may hold already, and what follows. Pure.

An update was sent to the resource that was delivered before; a create is under the resource's own
id where 1upHealth keeps ids, and anywhere else where it does not. A read by id sees what is stored
at once, a search late: a search that finds nothing counts when it is made twice.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from uplift.fhir.types import SEARCHABLE_TYPES
from uplift.fhir.versions import FhirVersion

# Legal FHIR ids that are no path segment: they cannot be looked up.
_UNADDRESSABLE = frozenset({"", ".", ".."})
# What separates tokens in a search, and escapes that: nobody says whether 1upHealth reads escapes
# (https://hl7.org/fhir/R4/search.html#escaping), and a search misread finds nothing.
_NO_TOKEN = re.compile(r"[,|$\\\x00-\x1f\x7f]|^\s|\s$")
_MAX_TOKEN = 1024


@dataclass(frozen=True, slots=True)
class ById:
    """A read of the resource with that id."""

    resource_id: str


@dataclass(frozen=True, slots=True)
class ByIdentifier:
    """A search by FHIR's token for an identifier: `system|value`, or a value alone."""

    token: str


Look = ById | ByIdentifier


class Finding(StrEnum):
    """What one look came to."""

    OURS = "ours"  # a resource with the upload's content
    OTHER = "other"  # a resource with other content, at that id
    NOTHING = "nothing"
    FAILED = "failed"  # no answer that can be relied on


class Conclusion(StrEnum):
    """What all looks say together."""

    STORED = "stored"
    NOT_STORED = "not_stored"  # sending it doubles nothing
    CANNOT_TELL = "cannot_tell"  # it could not be looked up: sending it may double it
    SEARCH_AGAIN = "search_again"  # nothing so far: the index may be late
    LOOK_AGAIN = "look_again"  # a look failed, which never permits a send


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is known of an upload before it is looked for.

    `target` is the id under which an older version was delivered, `own_id` the one in the
    resource; `empty_searches` how many found nothing since it may have been sent last.
    """

    target: str | None
    own_id: str | None
    identifier: str | None
    keeps_ids: bool
    empty_searches: int


def case_of(
    resource: dict[str, Any],
    *,
    fhir_version: str,
    target: str | None,
    keeps_ids: bool,
    empty_searches: int,
) -> Case:
    """The case of a resource that was sent as that version."""
    own_id = resource.get("id")
    version = FhirVersion.parse(fhir_version)
    searchable = version is not None and resource.get("resourceType") in SEARCHABLE_TYPES[version]
    return Case(
        target=target if target not in _UNADDRESSABLE else None,
        own_id=own_id if isinstance(own_id, str) and own_id not in _UNADDRESSABLE else None,
        identifier=identifier_token(resource) if searchable else None,
        keeps_ids=keeps_ids,
        empty_searches=empty_searches,
    )


def identifier_token(resource: dict[str, Any]) -> str | None:
    """FHIR's search token for one of the resource's identifiers, one with a system if it has any.

    None if none can be said in a search without escapes.
    """
    found = resource.get("identifier")
    tokens = list(_tokens(found if isinstance(found, list) else [found]))
    return next((token for token in tokens if "|" in token), tokens[0] if tokens else None)


def _tokens(identifiers: Iterable[Any]) -> Iterable[str]:
    for identifier in identifiers:
        if not isinstance(identifier, dict):
            continue
        value, system = identifier.get("value"), identifier.get("system")
        if not isinstance(value, str) or not value or _NO_TOKEN.search(value):
            continue
        token = value
        if isinstance(system, str) and system:
            if _NO_TOKEN.search(system):
                continue
            token = f"{system}|{value}"
        if len(token) <= _MAX_TOKEN:
            yield token


def written_after(
    resource: dict[str, Any], restored_to: datetime, *, known_version: str | None
) -> bool:
    """Whether what 1upHealth has was written after a time up to which the ledger is whole.

    Not if it is the version that the ledger knows of. What does not say when it was written
    (`meta.lastUpdated`, https://hl7.org/fhir/R4/resource.html#Meta) may have been.
    """
    meta = resource.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    if known_version is not None and meta.get("versionId") == known_version:
        return False
    try:
        return datetime.fromisoformat(meta.get("lastUpdated", "")) > restored_to
    except (TypeError, ValueError):
        return True


def next_step(case: Case, seen: Sequence[tuple[Look, Finding]]) -> Look | Conclusion:
    """The next look, or what those already made say."""
    findings = dict(seen)
    if Finding.OURS in findings.values():
        return Conclusion.STORED
    if Finding.FAILED in findings.values():
        return Conclusion.LOOK_AGAIN
    target = ById(case.target) if case.target is not None else None
    own = ById(case.own_id) if case.own_id is not None else None
    search = ByIdentifier(case.identifier) if case.identifier is not None else None
    # While the target is there, only updates of it were sent, and none arrived.
    if target is not None and findings.get(target) is Finding.OTHER:
        return Conclusion.NOT_STORED
    if case.keeps_ids and own in findings:
        return Conclusion.NOT_STORED
    for look in (target, own, search):
        if look is not None and look not in findings:
            return look
    if search is None:
        return Conclusion.CANNOT_TELL
    return Conclusion.NOT_STORED if case.empty_searches else Conclusion.SEARCH_AGAIN
