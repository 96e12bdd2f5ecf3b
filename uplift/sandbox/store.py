"""What the simulated server stores: every version of every resource, with its received bytes."""

import base64
import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from uplift.sandbox import recorded

Interaction = Literal["create", "create_again", "update", "delete"]
Copy = Literal["resource", "version"]
IdentifierToken = tuple[str, str]

_PATIENT = re.compile(r"(?:^|/)Patient/([^/?#]+)$")


@dataclass(slots=True)
class StoredVersion:
    """One write that was committed."""

    version_id: str
    received: bytes
    last_updated: datetime
    interaction: Interaction
    request: int
    content_sha256: str
    copy: Copy | None
    """`resource`: another resource had this content first. `version`: this one had it before."""
    searchable_at: float
    """`time.monotonic()` from which searches see it."""
    identifiers: frozenset[IdentifierToken]
    patients: frozenset[str]
    """The ids of the patients whom it is about."""
    stored: bytes
    """The resource as the server keeps it, without its own `id` and stamps."""
    deleted: bool = False
    """Whether this version says that the resource is deleted. It has no content."""

    @property
    def sha256(self) -> str:
        """Hex digest of the exact bytes received."""
        return hashlib.sha256(self.received).hexdigest()


@dataclass(slots=True)
class StoredResource:
    """All versions of one resource, oldest first."""

    resource_type: str
    id: str
    versions: list[StoredVersion] = field(default_factory=list)

    @property
    def latest(self) -> StoredVersion:
        """The current version."""
        return self.versions[-1]

    def seen_by_search(self, now: float) -> StoredVersion | None:
        """The newest version that the search index has, if any."""
        for version in reversed(self.versions):
            if version.searchable_at <= now:
                return None if version.deleted else version
        return None

    def as_stored(self, version: StoredVersion) -> dict[str, Any]:
        """A version as the server gives it back: its own `id`, `versionId` and `lastUpdated`."""
        resource: dict[str, Any] = orjson.loads(version.stored)
        meta = resource.get("meta")
        stamp: dict[str, Any] = {
            "versionId": version.version_id,
            "lastUpdated": version.last_updated.isoformat(timespec="milliseconds").replace(
                "+00:00", "Z"
            ),
        }
        return {
            **resource,
            "id": self.id,
            "meta": {**meta, **stamp} if isinstance(meta, dict) else stamp,
        }


@dataclass(slots=True)
class Shelf:
    """The resources of one user, FHIR version and type."""

    resources: dict[str, StoredResource] = field(default_factory=dict)
    by_identifier: dict[IdentifierToken, set[str]] = field(default_factory=dict)
    first_with_content: dict[str, str] = field(default_factory=dict)
    by_own_id: dict[str, str] = field(default_factory=dict)
    """The ids of resources by those that they came with, where the server gives its own."""


ShelfKey = tuple[str, str, str]


class Store:
    """Shelves by (oneup_user_id, FHIR version, resource type).

    `note` is told every write, in the form that `put_noted` takes.
    """

    def __init__(
        self,
        *,
        like_recorded: bool = False,
        opaque_versions: bool = False,
        note: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self._shelves: dict[ShelfKey, Shelf] = {}
        self._like_recorded = like_recorded
        self._opaque_versions = opaque_versions
        self._note = note

    def shelf(self, user: str, version: str, resource_type: str) -> Shelf:
        """The shelf, which is empty and unattached if nothing was stored on it."""
        return self._shelves.get((user, version, resource_type)) or Shelf()

    def find(self, user: str, version: str, resource_type: str, id_: str) -> StoredResource | None:
        """One resource by id."""
        return self.shelf(user, version, resource_type).resources.get(id_)

    def shelves(self) -> Iterator[tuple[ShelfKey, Shelf]]:
        """Every shelf, in the order of its first write."""
        yield from self._shelves.items()

    def put(
        self,
        *,
        user: str,
        version: str,
        resource: dict[str, Any],
        received: bytes,
        id_: str | None,
        update: bool,
        request: int,
        index_lag: float = 0.0,
        at: datetime | None = None,
        kept: dict[str, Any] | None = None,
    ) -> StoredResource:
        """Commit one write: a new resource, or one more version of the one with this id.

        `kept` is what the server makes of the resource, where it adds something.
        Raises orjson.JSONEncodeError for JSON that is nested too deeply to be written again.
        """
        content = content_sha256(resource)
        resource_type: str = resource["resourceType"]
        shelf = self._shelves.setdefault((user, version, resource_type), Shelf())
        id_ = id_ or (recorded.new_id() if self._like_recorded else str(uuid.uuid4()))
        stored = shelf.resources.get(id_)
        interaction: Interaction = "update" if update else "create_again" if stored else "create"
        if stored is None:
            stored = shelf.resources[id_] = StoredResource(resource_type, id_)
        copy: Copy | None = None
        if any(earlier.content_sha256 == content for earlier in stored.versions):
            copy = "version"
        elif shelf.first_with_content.setdefault(content, id_) != id_:
            copy = "resource"
        if self._like_recorded:
            kept = self._as_recorded(resource, user, version, id_)
        kept_bytes = received if kept is None else orjson.dumps(kept)
        identifiers = frozenset(_identifiers(kept or resource))
        for token in identifiers:
            shelf.by_identifier.setdefault(token, set()).add(id_)
        at = at or datetime.now(UTC)
        stored.versions.append(
            StoredVersion(
                version_id=self._next_version_id(stored),
                received=received,
                last_updated=at,
                interaction=interaction,
                request=request,
                content_sha256=content,
                copy=copy,
                searchable_at=time.monotonic() + index_lag,
                identifiers=identifiers,
                patients=frozenset(_patients(kept or resource)),
                stored=kept_bytes,
            )
        )
        self._note(
            {
                "user": user,
                "version": version,
                "id": id_,
                "update": update,
                "request": request,
                "at": at.isoformat(),
                "received": base64.b64encode(received).decode(),
                "kept": None if self._like_recorded else kept,
            }
        )
        return stored

    def delete(
        self,
        user: str,
        version: str,
        resource_type: str,
        id_: str,
        *,
        request: int,
        at: datetime | None = None,
    ) -> StoredResource:
        """Commit a deletion of a resource that is there: one more version, without content."""
        stored = self.shelf(user, version, resource_type).resources[id_]
        at = at or datetime.now(UTC)
        stored.versions.append(
            StoredVersion(
                version_id=self._next_version_id(stored),
                received=b"",
                last_updated=at,
                interaction="delete",
                request=request,
                content_sha256="",
                copy=None,
                searchable_at=time.monotonic(),
                identifiers=frozenset(),
                patients=frozenset(),
                stored=b"{}",
                deleted=True,
            )
        )
        self._note(
            {
                "user": user,
                "version": version,
                "type": resource_type,
                "id": id_,
                "request": request,
                "at": at.isoformat(),
            }
        )
        return stored

    def put_noted(self, noted: dict[str, Any]) -> None:
        """Commit a write or a deletion that was noted earlier."""
        if "received" not in noted:
            self.delete(
                noted["user"],
                noted["version"],
                noted["type"],
                noted["id"],
                request=noted["request"],
                at=datetime.fromisoformat(noted["at"]),
            )
            return
        received = base64.b64decode(noted["received"])
        self.put(
            user=noted["user"],
            version=noted["version"],
            resource=orjson.loads(received),
            received=received,
            id_=noted["id"],
            update=noted["update"],
            request=noted["request"],
            at=datetime.fromisoformat(noted["at"]),
            kept=noted["kept"],
        )

    def _next_version_id(self, stored: StoredResource) -> str:
        number = len(stored.versions) + 1
        if self._like_recorded:
            return recorded.version_id(number)
        if self._opaque_versions:
            # The same after the journal is read again.
            return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{stored.id}/{number}"))
        return str(number)

    def _as_recorded(
        self, resource: dict[str, Any], user: str, version: str, id_: str
    ) -> dict[str, Any]:
        own_id = resource.get("id")
        if isinstance(own_id, str):
            self.shelf(user, version, resource["resourceType"]).by_own_id[own_id] = id_
        return recorded.as_recorded(
            resource,
            id_,
            lambda type_, own: self.shelf(user, version, type_).by_own_id.get(own),
        )


def content_sha256(resource: dict[str, Any]) -> str:
    """Hex digest of a resource's content: its JSON without `id` and `meta`, keys in order."""
    content = {name: value for name, value in resource.items() if name not in ("id", "meta")}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _patients(resource: dict[str, Any]) -> Iterator[str]:
    for name in ("patient", "subject", "beneficiary"):
        element = resource.get(name)
        reference = element.get("reference") if isinstance(element, dict) else None
        found = _PATIENT.search(reference) if isinstance(reference, str) else None
        if found is not None:
            yield found[1]


def _identifiers(resource: dict[str, Any]) -> Iterator[IdentifierToken]:
    found = resource.get("identifier")
    for identifier in found if isinstance(found, list) else [found]:
        if isinstance(identifier, dict) and isinstance(identifier.get("value"), str):
            system = identifier.get("system")
            yield (system if isinstance(system, str) else "", identifier["value"])
