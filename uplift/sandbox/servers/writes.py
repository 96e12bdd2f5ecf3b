"""What one PUT, POST or DELETE does. A write is planned first, so that a transaction can be refused
as a whole before anything is stored.
"""

import re
import time
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

import orjson

from uplift.sandbox import capabilities
from uplift.sandbox.search import search
from uplift.sandbox.servers.additions import with_additions
from uplift.sandbox.servers.outcomes import Refusal
from uplift.sandbox.servers.profile import Profile
from uplift.sandbox.servers.references import check_references, leads_to
from uplift.sandbox.store import Shelf, Store, StoredResource, StoredVersion

NOBODY = ""
"""The user of every resource: these servers have none."""

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')
_STAMPS = ("versionId", "lastUpdated", "source")
_FIRST_ID = 1000


@dataclass(frozen=True, slots=True)
class Write:
    """What is asked for, by a request of its own or by an entry of a Bundle."""

    method: str
    version: str
    resource_type: str
    id: str | None = None
    resource: dict[str, Any] | None = None
    received: bytes = b""
    """The resource's bytes."""
    criteria: str | None = None
    """The query of a conditional update, or `If-None-Exist` of a conditional create."""
    if_match: str | None = None
    in_bundle: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, once nothing forbids it."""

    write: Write
    id: str | None
    """None: the server gives one."""
    action: Literal["store", "delete", "nothing"]
    status: int
    code: str
    """HAPI's word for the success."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was done."""

    plan: Plan
    resource_type: str
    id: str
    version: StoredVersion | None
    shown: dict[str, Any] | None
    """The resource as the response shows it."""

    @property
    def path(self) -> str:
        """`Type/id/_history/version`, or `Type/id` where nothing is known of it."""
        path = f"{self.resource_type}/{self.id}"
        return f"{path}/_history/{self.version.version_id}" if self.version else path


def shelf_of(store: Store, version: str, resource_type: str) -> Shelf:
    """All resources of a type."""
    return store.shelf(NOBODY, version, resource_type)


def found_by(store: Store, version: str, resource_type: str, query: str) -> list[str]:
    """The ids that a query finds. Raises Refusal (400) for a parameter that is not simulated."""
    try:
        page = search(
            shelf_of(store, version, resource_type),
            parse_qsl(query, keep_blank_values=True),
            resource_type,
            time.monotonic(),
        )
    except ValueError as wrong:
        raise Refusal(400, f"HAPI-0524: {wrong}") from None
    return [entry["resource"]["id"] for entry in page["entry"]]


def plan(
    store: Store, write: Write, profile: Profile, coming: frozenset[str] = frozenset()
) -> Plan:
    """What a write will do. Raises Refusal.

    `coming` are the places, as `Type/id`, that the same transaction writes.
    """
    require_type(write.version, write.resource_type)
    match write.method, write.id, write.criteria:
        case "PUT", str(id_), _:
            return _plan_put(store, write, id_, profile, coming)
        case "PUT", None, str(criteria):
            return _plan_conditional_update(store, write, criteria, profile, coming)
        case "POST", None, _:
            return _plan_create(store, write, profile, coming)
        case "DELETE", str(id_), _:
            return _plan_delete(store, write, id_, profile)
    raise Refusal(400, f"HAPI-0445: {write.method} of {write.resource_type} is not simulated")


def require_type(version: str, resource_type: str) -> None:
    """Raise Refusal (404) for a type that this version does not have."""
    if not capabilities.is_known(version, resource_type):
        known = ", ".join(sorted(capabilities.TYPES[version]))
        raise Refusal(
            404,
            f"HAPI-0302: Unknown resource type '{resource_type}' - "
            f"Server knows how to handle: [{known}]",
        )


def carry_out(
    store: Store, plan: Plan, profile: Profile, *, request: int, request_id: str, index_lag: float
) -> Written:
    """Do what was planned."""
    write = plan.write
    version, type_ = write.version, write.resource_type
    stored = store.find(NOBODY, version, type_, plan.id) if plan.id else None
    if plan.action == "delete" and plan.id:
        stored = store.delete(NOBODY, version, type_, plan.id, request=request)
    elif plan.action == "store":
        resource = write.resource or {}
        stored = store.put(
            user=NOBODY,
            version=version,
            resource=resource,
            received=write.received,
            id_=plan.id or (_next_id(store) if profile.is_hapi else None),
            update=write.method == "PUT",
            request=request,
            index_lag=index_lag,
            kept=with_additions(resource, version, profile, request_id),
        )
    if stored is None:
        return Written(plan, type_, plan.id or "", None, None)
    return Written(plan, type_, stored.id, stored.latest, _shown(stored, plan, profile))


def _plan_put(
    store: Store, write: Write, id_: str, profile: Profile, coming: frozenset[str]
) -> Plan:
    resource = write.resource or {}
    if "id" not in resource:
        raise Refusal(
            400,
            "HAPI-0419: Can not update resource, resource body must contain an ID element for "
            "update (PUT) operation",
        )
    if resource["id"] != id_:
        raise Refusal(
            400,
            "HAPI-0420: Can not update resource, resource body must contain an ID element which "
            "matches the request URL for update (PUT) operation - Resource body ID of "
            f'"{resource["id"]}" does not match URL ID of "{id_}"',
        )
    _check_id(id_)
    known = store.find(NOBODY, write.version, write.resource_type, id_)
    if not profile.client_ids and (known is None or known.latest.deleted):
        raise Refusal(404 if known is None else profile.gone, "Not found")
    if known is None and not profile.numeric_ids and id_.isdecimal():
        raise Refusal(
            400,
            f"HAPI-0960: Can not create resource with ID[{id_}], no resource with this ID exists "
            "and clients may only assign IDs which contain at least one non-numeric character",
        )
    _check_references(store, write, resource, profile, coming)
    if known is None:
        _check_without(write, profile)
        return Plan(write, id_, "store", 201, "SUCCESSFUL_UPDATE_AS_CREATE")
    return _plan_update(write, known, profile)


def _check_id(id_: str) -> None:
    if not _ID.fullmatch(id_):
        raise Refusal(
            400, f"HAPI-0521: Can not process entity with ID[{id_}], this is not a valid FHIR ID"
        )


def _check_without(write: Write, profile: Profile) -> None:
    """Raise Refusal if `If-Match` is looked at although nothing is there."""
    if write.if_match is not None and profile.if_match_without is not None:
        raise Refusal(profile.if_match_without, "The version to update is not there")


def _plan_update(write: Write, known: StoredResource, profile: Profile) -> Plan:
    latest = known.latest
    # On DSTU2 HAPI reads the precondition of an entry, and not that of a request.
    unread = profile.is_hapi and write.version == "dstu2" and not write.in_bundle
    if write.if_match is not None and not unread:
        found = _ETAG.fullmatch(write.if_match.strip())
        wanted = found[1] if found else write.if_match
        if wanted != latest.version_id:
            raise Refusal(
                profile.stale_if_match,
                f"HAPI-0550: HAPI-0989: Trying to update {known.resource_type}/{known.id}/_history/"
                f"{wanted} but this is not the current version",
            )
    if latest.deleted:
        return Plan(write, known.id, "store", 201, "SUCCESSFUL_UPDATE_AS_CREATE")
    is_equal = _content(write.resource or {}) == _content(orjson.loads(latest.received))
    if is_equal and not profile.equal_put_is_a_version:
        return Plan(write, known.id, "nothing", 200, "SUCCESSFUL_UPDATE_NO_CHANGE")
    return Plan(write, known.id, "store", 200, "SUCCESSFUL_UPDATE")


def _plan_conditional_update(
    store: Store, write: Write, criteria: str, profile: Profile, coming: frozenset[str]
) -> Plan:
    found = found_by(store, write.version, write.resource_type, criteria)
    if len(found) > 1:
        raise Refusal(
            412,
            f'HAPI-0988: Failed to UPDATE {write.resource_type} with match URL "'
            f'{write.resource_type}?{criteria}" because this search matched {len(found)} resources',
        )
    _check_references(store, write, write.resource or {}, profile, coming)
    known = store.find(NOBODY, write.version, write.resource_type, found[0]) if found else None
    own_id = (write.resource or {}).get("id")
    if not profile.client_ids and own_id not in (None, known.id if known else None):
        raise Refusal(400, "The id in the body is not that of the resource")
    if known is None:
        _check_without(write, profile)
        return Plan(write, None, "store", 201, "SUCCESSFUL_UPDATE_NO_CONDITIONAL_MATCH")
    return _plan_update(write, known, profile)


def _plan_create(store: Store, write: Write, profile: Profile, coming: frozenset[str]) -> Plan:
    resource = write.resource or {}
    if profile.checks_ids_of_posts and "id" in resource:
        _check_id(str(resource["id"]))
    if profile.is_hapi and write.version == "dstu2" and "id" in resource:
        raise Refusal(
            400,
            f'HAPI-0366: Can not create resource with ID "{resource["id"]}", an ID element must '
            "not be supplied in the resource body on a create (POST) operation",
        )
    if write.criteria is None:
        _check_references(store, write, resource, profile, coming)
        return Plan(write, None, "store", 201, "SUCCESSFUL_CREATE")
    found = found_by(store, write.version, write.resource_type, write.criteria)
    if len(found) > 1:
        raise Refusal(
            412,
            f'HAPI-0958: Failed to CREATE {write.resource_type} with match URL "{write.criteria}" '
            f"because this search matched {len(found)} resources",
        )
    if found:
        return Plan(write, found[0], "nothing", 200, "SUCCESSFUL_CREATE_WITH_CONDITIONAL_MATCH")
    scratch = Store()
    scratch.put(
        user=NOBODY,
        version=write.version,
        resource=resource,
        received=b"{}",
        id_=None,
        update=False,
        request=0,
    )
    if not found_by(scratch, write.version, write.resource_type, write.criteria):
        raise Refusal(
            400,
            f"HAPI-0929: Failed to process conditional create. The supplied resource "
            f"{write.criteria} of type {write.resource_type} did not satisfy the conditional URL.",
        )
    _check_references(store, write, resource, profile, coming)
    return Plan(write, None, "store", 201, "SUCCESSFUL_CREATE_NO_CONDITIONAL_MATCH")


def _plan_delete(store: Store, write: Write, id_: str, profile: Profile) -> Plan:
    again = 204 if write.in_bundle else profile.delete_again_status
    known = store.find(NOBODY, write.version, write.resource_type, id_)
    if known is None:
        return Plan(write, id_, "nothing", again, "SUCCESSFUL_DELETE_NOT_FOUND")
    if known.latest.deleted:
        return Plan(write, id_, "nothing", again, "SUCCESSFUL_DELETE_ALREADY_DELETED")
    if profile.keeps_targets:
        _check_nothing_leads_to(store, write, id_)
    status = 204 if write.in_bundle else profile.delete_status
    return Plan(write, id_, "delete", status, "SUCCESSFUL_DELETE")


def _check_nothing_leads_to(store: Store, write: Write, id_: str) -> None:
    target, named = f"{write.resource_type}/{id_}", id_.encode()
    for (_, version, _), shelf in store.shelves():
        for other in shelf.resources.values():
            if (
                version == write.version
                and not other.latest.deleted
                # To parse thousands for each deletion would halt the server for seconds.
                and named in other.latest.stored
                and leads_to(other.as_stored(other.latest), target)
            ):
                raise Refusal(
                    409,
                    f"{'HAPI-0550: HAPI-0515: ' if write.in_bundle else ''}Unable to delete "
                    f"{target} because at least one resource has a reference to this resource. "
                    f"First reference found was resource {other.resource_type}/{other.id}",
                )


def _check_references(
    store: Store,
    write: Write,
    resource: dict[str, Any],
    profile: Profile,
    coming: frozenset[str],
) -> None:
    if profile.integrity == "never" or (profile.integrity == "single" and write.in_bundle):
        return

    def state(type_: str, id_: str) -> str:
        if f"{type_}/{id_}" in coming:
            return "there"
        found = store.find(NOBODY, write.version, type_, id_)
        if found is None:
            return "unknown"
        return "deleted" if found.latest.deleted else "there"

    check_references(
        resource,
        state,
        lambda type_, query: len(found_by(store, write.version, type_, query)),
        profile,
    )


def _shown(stored: StoredResource, plan: Plan, profile: Profile) -> dict[str, Any]:
    shown = stored.as_stored(stored.latest)
    if profile.is_hapi and plan.code == "SUCCESSFUL_UPDATE_NO_CHANGE":
        # The response to an equal PUT shows what came, and where it came from is not known of it.
        shown["meta"].pop("source", None)
    return shown


def _content(resource: dict[str, Any]) -> dict[str, Any]:
    """What makes a new version when it changes."""
    meta = resource.get("meta")
    kept = {name: value for name, value in (meta or {}).items() if name not in _STAMPS}
    rest = {name: value for name, value in resource.items() if name not in ("id", "meta")}
    return {**rest, "meta": kept}


def _next_id(store: Store) -> str:
    # Clients cannot give numeric ids, so these are free.
    return str(_FIRST_ID + sum(len(shelf.resources) for _, shelf in store.shelves()))
