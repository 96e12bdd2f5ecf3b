"""Classifies the response to a Bundle of writes: one `Response` for each of its entries. Pure.

An entry's own answer is classified as the response to a request of its own is. What speaks of the
whole Bundle is no verdict on any of its records.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from uplift.destinations.destination import Destination
from uplift.destinations.receipts import place_in
from uplift.destinations.refusals import issues_of
from uplift.destinations.requests import Entry, Put, Upsert
from uplift.destinations.responses import (
    Received,
    Response,
    ResponseKind,
    classify_failure,
    classify_success,
    fhir_object,
    retry_after,
)
from uplift.fhir.versions import FhirVersion


@dataclass(frozen=True, slots=True)
class BundleResponse:
    """The response to each entry. `is_of_all`: there is only one, which speaks of all of them."""

    each: list[Response]
    is_of_all: bool = False

    @classmethod
    def of_all(cls, response: Response, entries: Sequence[Entry]) -> "BundleResponse":
        """That response to all of these."""
        return cls([response] * len(entries), is_of_all=True)


# Of the 4xx, these say something else than that an entry is not taken.
_NOT_ABOUT_ENTRIES = frozenset({401, 403, 408, 425, 429})
_OUTCOME = "OperationOutcome"


def classify_bundle(
    status: int,
    headers: httpx.Headers,
    body: bytes,
    entries: Sequence[Entry],
    *,
    destination: Destination,
    version: FhirVersion,
) -> BundleResponse:
    """Classify the response to a Bundle of these entries, in their order.

    https://hl7.org/fhir/R4/http.html#transaction-response
    """
    if not 200 <= status < 300:
        whole = _of_all(status, headers, entries[0], destination)
        return BundleResponse.of_all(whole, entries)
    answered = _answered(headers, body)
    if answered is None:
        unknown = Response(ResponseKind.UNKNOWN, "not_a_bundle", status)
        return BundleResponse.of_all(unknown, entries)
    answers = [_answer(each) for each in answered]
    pairs = list(zip(entries, answers, strict=False))
    if len(answers) != len(entries) or any(_is_of_another(*pair) for pair in pairs):
        unknown = Response(ResponseKind.UNKNOWN, "bundle_does_not_fit", status)
        return BundleResponse.of_all(unknown, entries)
    return BundleResponse([_of_one(entry, answer, destination, version) for entry, answer in pairs])


def _of_all(
    status: int, headers: httpx.Headers, entry: Entry, destination: Destination
) -> Response:
    code = f"bundle_http_{status}"
    if 400 <= status < 500 and status not in _NOT_ABOUT_ENTRIES:
        return Response(ResponseKind.BUNDLE_REFUSED, code, status, retry_after(headers))
    answer = Received(status, headers, None)
    failure = classify_failure(answer, destination=destination, write=entry.write)
    return replace(failure, code=code)


def _answered(headers: httpx.Headers, body: bytes) -> list[Any] | None:
    bundle = fhir_object(headers, body)
    if bundle is None or bundle.get("resourceType") != "Bundle":
        return None
    entries = bundle.get("entry", [])
    return entries if isinstance(entries, list) else None


def _answer(entry: Any) -> Received | None:
    """What an entry of the response says; None if it cannot be read."""
    response = entry.get("response") if isinstance(entry, dict) else None
    if not isinstance(response, dict):
        return None
    words = str(response.get("status")).split(maxsplit=1)
    if not (words and len(words[0]) == 3 and words[0].isascii() and words[0].isdigit()):
        return None
    named = {name: response.get(name) for name in ("location", "etag")}
    headers = httpx.Headers(
        {name: text for name, text in named.items() if isinstance(text, str) and text.isascii()}
    )
    # DSTU2 has no `outcome`: there it is the resource.
    came = [each for each in (entry.get("resource"), response.get("outcome")) if each is not None]
    resource = came[0] if came and isinstance(came[0], dict) else None
    return Received(int(words[0]), headers, resource, is_empty=not came)


def _is_of_another(entry: Entry, answer: Received | None) -> bool:
    """Whether an answer names another resource than that of its entry: the order is not ours."""
    if answer is None:
        return False
    place = place_in(answer.headers)
    shown = answer.resource
    if shown is not None and shown.get("resourceType") == _OUTCOME:
        shown = None
    types = (place[0] if place else None, shown.get("resourceType") if shown else None)
    if any(each not in (None, entry.resource_type) for each in types):
        return True
    match entry.write:
        case Put(resource_id):
            ids = (place[1] if place else None, shown.get("id") if shown else None)
            return any(each not in (None, resource_id) for each in ids)
        case Upsert() as upsert:
            return shown is not None and not _is_found_by(shown, upsert)


def _is_found_by(resource: dict[str, Any], upsert: Upsert) -> bool:
    meta = resource.get("meta")
    named = [resource.get("identifier"), meta.get("tag") if isinstance(meta, dict) else None]
    return any(
        isinstance(each, dict)
        and each.get("system") == upsert.system
        and upsert.value in (each.get("value"), each.get("code"))
        for names in named
        for each in (names if isinstance(names, list) else [names])
    )


def _of_one(
    entry: Entry, answer: Received | None, destination: Destination, version: FhirVersion
) -> Response:
    if answer is None:
        return Response(ResponseKind.UNKNOWN, "entry_not_readable", 200)
    if 200 <= answer.status < 300:
        return classify_success(answer, entry.resource_type, entry.write, entry.body)
    failure = classify_failure(answer, destination=destination, write=entry.write)
    if failure.kind is not ResponseKind.REFUSED:
        return failure
    return replace(failure, refusal=issues_of(answer.resource, version, entry.resource_type))
