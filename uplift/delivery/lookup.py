"""Is an upload at the destination already? `reconcile` has the rule; this asks and classifies."""

from typing import Any

import orjson

from uplift.delivery.calls import Calls
from uplift.delivery.reconcile import (
    ById,
    Conclusion,
    Finding,
    LookUp,
    case_of,
    needs_equal_content,
    next_step,
    written_after,
)
from uplift.delivery.results import (
    Found,
    LookedUp,
    LookUpFailed,
    NewerFound,
    NotFound,
    Opened,
    SearchEmpty,
)
from uplift.destinations.responses import Response, ResponseKind
from uplift.destinations.same_content import same_content


class LookUps:
    """Looks up uploads of which an earlier attempt may have arrived."""

    def __init__(self, calls: Calls, *, keeps_ids: bool) -> None:
        self._calls = calls
        self._keeps_ids = keeps_ids

    async def look_up(self, opened: Opened) -> LookedUp:
        """Make the look-ups that the rule asks for, until it concludes.

        Raises what `Calls` raises.
        """
        resource: dict[str, Any] = orjson.loads(opened.body)
        case = case_of(
            resource,
            fhir_version=opened.claim.fhir_version,
            target=opened.delivered_id,
            keeps_ids=self._keeps_ids,
            empty_searches=opened.claim.empty_searches,
        )
        seen: list[tuple[LookUp, Finding]] = []
        while not isinstance(step := next_step(case, seen), Conclusion):
            response = await self._call(opened, step, resource)
            seen.append((step, _finding(opened, response, resource)))
        match step:
            case Conclusion.STORED:
                return Found(response)
            case Conclusion.NEWER:
                return NewerFound()
            case Conclusion.LOOK_UP_AGAIN:
                return LookUpFailed(response)
            case Conclusion.SEARCH_AGAIN:
                return SearchEmpty()
            case Conclusion.NOT_STORED:
                return NotFound()
            case Conclusion.CANNOT_TELL:
                return NotFound(can_tell=False)

    async def _call(self, opened: Opened, step: LookUp, resource: dict[str, Any]) -> Response:
        if isinstance(step, ById):
            return await self._calls.look_up(opened, step.resource_id)
        return await self._calls.search(opened, step.token, resource)


def _finding(opened: Opened, response: Response, resource: dict[str, Any]) -> Finding:
    match response.kind:
        case ResponseKind.FOUND if _is_ours(opened, response, resource):
            return Finding.OURS
        case ResponseKind.FOUND:
            return Finding.NEWER if _is_newer(opened, response) else Finding.OTHER
        case ResponseKind.ABSENT:
            return Finding.NOTHING
    return Finding.FAILED


def _is_ours(opened: Opened, found: Response, resource: dict[str, Any]) -> bool:
    exactly = needs_equal_content(
        found.receipt,
        delivered_id=opened.delivered_id,
        delivered_version=opened.delivered_version,
        older_without_receipt=opened.has_older_without_receipt,
    )
    return same_content(resource, found.resource, exactly=exactly)


def _is_newer(opened: Opened, found: Response) -> bool:
    """Whether the restored ledger cannot know of this content: it came after the upload did."""
    if opened.claim.newer_since is None:
        return False
    return written_after(
        found.resource or {},
        opened.claim.newer_since,
        known_version=opened.delivered_version,
    )
