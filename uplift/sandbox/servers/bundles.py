"""Bundles posted to the base: `batch` entry by entry, `transaction` all or nothing.

What the parser does not take in one entry is a 400 for the whole Bundle, which names no entry.
"""

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson

from uplift.sandbox.servers.limits import check_entries, check_limits
from uplift.sandbox.servers.outcomes import Refusal, refused, succeeded
from uplift.sandbox.servers.parsing import check_resource
from uplift.sandbox.servers.profile import Profile
from uplift.sandbox.servers.writes import NOBODY, Plan, Write, Written, plan
from uplift.sandbox.store import Store

CarryOut = Callable[[Plan], Written]


def answer_bundle(
    store: Store,
    bundle: dict[str, Any],
    version: str,
    carry_out: CarryOut,
    profile: Profile,
    *,
    representation: bool,
) -> dict[str, Any]:
    """The Bundle that answers this one. Raises Refusal when nothing of it was done.

    `representation`: whether each entry shows its resource (`Prefer: return=representation`).
    """
    kind = bundle.get("type")
    if kind not in profile.bundles:
        raise Refusal(
            400, f"HAPI-0527: Unable to process transaction where incoming Bundle.type = {kind}"
        )
    entries = [entry for entry in bundle.get("entry", []) if isinstance(entry, dict)]
    check_entries(len(entries), profile)
    for entry in entries:
        if isinstance(entry.get("resource"), dict):
            check_resource(entry["resource"], version)
    show = _Entries(version, profile, representation=representation)
    if kind == "batch":
        answers = [_one_of_batch(store, entry, version, carry_out, show) for entry in entries]
    else:
        answers = _transaction(store, entries, version, carry_out, show)
    return {"resourceType": "Bundle", "type": f"{kind}-response", "entry": answers}


def written_by(bundle: Any) -> list[dict[str, str | None]]:
    """The digest of each resource in it, as of what is stored, and its precondition."""
    entries = bundle.get("entry") if isinstance(bundle, dict) else None
    return [
        {
            "sha256": hashlib.sha256(orjson.dumps(entry["resource"])).hexdigest(),
            "if_match": entry["request"].get("ifMatch"),
        }
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        and isinstance(entry.get("resource"), dict)
        and isinstance(entry.get("request"), dict)
    ]


class _Entries:
    """How a server shows the result of an entry."""

    def __init__(self, version: str, profile: Profile, *, representation: bool) -> None:
        self.profile = profile
        self._dstu2 = version == "dstu2"
        self._representation = representation

    def written(self, done: Written) -> dict[str, Any]:
        response: dict[str, Any] = {"status": _status_line(done.plan.status)}
        if done.version is not None:
            tag = done.version.version_id
            # HAPI's is a bare number, unlike the header of a single request.
            etag = tag if self.profile.is_hapi else f'W/"{tag}"'
            response |= {"location": done.path, "etag": etag}
        if done.plan.status == HTTPStatus.CREATED and done.version is not None:
            response["lastModified"] = done.version.last_updated.isoformat(timespec="milliseconds")
        outcome = succeeded(done.plan.code, f'Successfully processed resource "{done.path}".')
        shown = done.shown if self._representation and done.plan.write.method != "DELETE" else None
        return self._entry(response, outcome, shown)

    def refusal(self, why: Refusal) -> dict[str, Any]:
        outcome = refused(why, self.profile, in_bundle=True)
        return self._entry({"status": _status_line(why.status)}, outcome, None)

    def _entry(
        self, response: dict[str, Any], outcome: dict[str, Any], shown: dict[str, Any] | None
    ) -> dict[str, Any]:
        if self._dstu2:
            # Bundle.entry.response.outcome came with STU3.
            return {"resource": outcome, "response": response}
        answer: dict[str, Any] = {"response": {**response, "outcome": outcome}}
        return answer if shown is None else {"resource": shown, **answer}


def _one_of_batch(
    store: Store, entry: dict[str, Any], version: str, carry_out: CarryOut, show: _Entries
) -> dict[str, Any]:
    try:
        if entry.get("request", {}).get("method") == "GET":
            return _read(store, str(entry["request"].get("url", "")), version)
        return show.written(carry_out(_plan(store, entry, version, show.profile)))
    except Refusal as why:
        return show.refusal(why)


def _transaction(
    store: Store,
    entries: list[dict[str, Any]],
    version: str,
    carry_out: CarryOut,
    show: _Entries,
) -> list[dict[str, Any]]:
    writes = [_write(entry, version) for entry in entries]
    places = [f"{write.resource_type}/{write.id}" for write in writes if write.id]
    for place in places:
        if places.count(place) > 1:
            raise Refusal(
                400, f"HAPI-0535: Transaction bundle contains multiple resources with ID: {place}"
            )
    coming = frozenset(
        f"{write.resource_type}/{write.id}"
        for write in writes
        if write.method == "PUT" and write.id
    )
    for write in writes:
        _check(write, show.profile)
    plans = [plan(store, write, show.profile, coming) for write in writes]
    return [show.written(carry_out(each)) for each in plans]


def _plan(store: Store, entry: dict[str, Any], version: str, profile: Profile) -> Plan:
    write = _write(entry, version)
    _check(write, profile)
    return plan(store, write, profile)


def _check(write: Write, profile: Profile) -> None:
    if write.resource is not None:
        check_limits(write.resource, len(write.received), profile)


def _write(entry: dict[str, Any], version: str) -> Write:
    request = entry.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("url"), str):
        raise Refusal(400, "HAPI-0541: Bundle entry has no request")
    path, _, query = request["url"].partition("?")
    type_, _, id_ = path.strip("/").partition("/")
    resource = entry.get("resource")
    return Write(
        method=str(request.get("method")),
        version=version,
        resource_type=type_,
        id=id_ or None,
        resource=resource,
        received=orjson.dumps(resource),
        criteria=query or request.get("ifNoneExist"),
        if_match=request.get("ifMatch"),
        in_bundle=True,
    )


def _read(store: Store, url: str, version: str) -> dict[str, Any]:
    type_, _, id_ = url.strip("/").partition("/")
    stored = store.find(NOBODY, version, type_, id_)
    if stored is None:
        raise Refusal(404, f"HAPI-2001: Resource {type_}/{id_} is not known")
    if stored.latest.deleted:
        raise Refusal(410, "Resource was deleted")
    return {"resource": stored.as_stored(stored.latest), "response": {"status": _status_line(200)}}


def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
