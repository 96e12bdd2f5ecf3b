"""The rule of look-ups: what to ask about an upload that may be there, and what follows. Pure.

An update was sent to the resource that was delivered before. A create is under the resource's own
id where the destination keeps ids, and under an unknown id where it does not. A read by id sees
what is stored at once; a search sees it late, so two searches must find nothing.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from uplift.destinations.receipts import Receipt
from uplift.fhir.types import SEARCHABLE_TYPES
from uplift.fhir.versions import FhirVersion

# By so much the clocks of Uplift and the destination may differ.
_CLOCKS_DIFFER = timedelta(seconds=60)

# Legal FHIR ids that are no path segment: they cannot be looked up.
_UNADDRESSABLE = frozenset({"", ".", ".."})
# These characters separate tokens in a search, or escape those that do. 1upHealth does not say
# whether it reads escapes (https://hl7.org/fhir/R4/search.html#escaping), and a search that is
# misread finds nothing.
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


LookUp = ById | ByIdentifier


class Finding(StrEnum):
    """What one look-up found."""

    OURS = "ours"  # a resource with the upload's content
    OTHER = "other"  # a resource with other content, at that id
    NEWER = "newer"  # other content at that id, which a restored ledger cannot know of
    NOTHING = "nothing"
    FAILED = "failed"  # no reliable response


class Conclusion(StrEnum):
    """What all look-ups say together."""

    STORED = "stored"
    NEWER = "newer"  # a person must decide which content is right
    NOT_STORED = "not_stored"  # sending it duplicates nothing
    CANNOT_TELL = "cannot_tell"  # it cannot be looked up: sending it may duplicate it
    SEARCH_AGAIN = "search_again"  # nothing so far: the index may be late
    LOOK_UP_AGAIN = "look_up_again"  # a look-up failed, which never permits a send


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is known of an upload before its look-ups.

    `target` is the id under which an older version was delivered, `own_id` the id in the resource.
    `empty_searches` is how many searches have found nothing since it may have been sent last.
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
    """FHIR's search token for one of the resource's identifiers, preferably one with a system.

    None if each of them needs escapes in a search, or if there is none.
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
    resource: dict[str, Any], accepted_at: datetime, *, known_version: str | None
) -> bool:
    """Whether the found resource may have been written after an upload was accepted.

    A newer version of its record can only have been. The version that the ledger knows of was not.
    A resource that does not say when it was written (`meta.lastUpdated`,
    https://hl7.org/fhir/R4/resource.html#Meta) may have been, and so may one from shortly before:
    the clocks may differ.
    """
    meta = resource.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    if known_version is not None and meta.get("versionId") == known_version:
        return False
    try:
        written_at = datetime.fromisoformat(meta.get("lastUpdated", ""))
        return written_at > accepted_at - _CLOCKS_DIFFER
    except (TypeError, ValueError):
        return True


def needs_equal_content(
    found: Receipt | None,
    *,
    delivered_id: str | None,
    delivered_version: str | None,
    older_without_receipt: bool,
) -> bool:
    """Whether a found resource is ours only if its content is equal, with nothing that servers add.

    An older version of the record may look like ours with such an addition: ours removed an
    extension, and was lost. So an update is there under a version that is not the receipt's.
    Nobody knows the version of an older one that has no receipt.
    """
    if older_without_receipt:
        return True
    if delivered_id is None:
        return False
    if found is None or found.id != delivered_id:
        return True
    return found.version is None or delivered_version in (None, found.version)


def next_step(case: Case, seen: Sequence[tuple[LookUp, Finding]]) -> LookUp | Conclusion:
    """The next look-up, or the conclusion from those that were made."""
    findings = dict(seen)
    if Finding.OURS in findings.values():
        return Conclusion.STORED
    if Finding.NEWER in findings.values():
        return Conclusion.NEWER
    if Finding.FAILED in findings.values():
        return Conclusion.LOOK_UP_AGAIN
    target = ById(case.target) if case.target is not None else None
    own = ById(case.own_id) if case.own_id is not None else None
    search = ByIdentifier(case.identifier) if case.identifier is not None else None
    # The target is there with other content: only updates of it were sent, and none arrived.
    if target is not None and findings.get(target) is Finding.OTHER:
        return Conclusion.NOT_STORED
    if case.keeps_ids and own in findings:
        return Conclusion.NOT_STORED
    for look_up in (target, own, search):
        if look_up is not None and look_up not in findings:
            return look_up
    if search is None:
        return Conclusion.CANNOT_TELL
    return Conclusion.NOT_STORED if case.empty_searches else Conclusion.SEARCH_AGAIN
