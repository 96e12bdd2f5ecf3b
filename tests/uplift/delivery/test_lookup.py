"""What all look-ups of one attempt say together, against a destination in memory."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import pytest
from msgspec import structs

from tests.uplift.delivery.test_outcome import CLAIM, OPENED
from uplift.delivery.calls import Calls
from uplift.delivery.lookup import LookUps
from uplift.delivery.results import (
    Found,
    LookedUp,
    LookUpFailed,
    NewerFound,
    NotFound,
    Opened,
    SearchEmpty,
)
from uplift.destinations.receipts import Receipt
from uplift.destinations.responses import Response, ResponseKind

RESOURCE: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "own",
    "identifier": [{"system": "system", "value": "value"}],
}
BACKUP = datetime(2026, 1, 1, tzinfo=UTC)
ABSENT = Response(ResponseKind.ABSENT, "http_404", 404)
FAILED = Response(ResponseKind.UNKNOWN, "http_503", 503)


def found(receipt: Receipt | None = None, **more: Any) -> Response:
    resource = {**RESOURCE, **more}
    return Response(ResponseKind.FOUND, "http_200", 200, receipt=receipt, resource=resource)


OURS = found(meta={"versionId": "3"})
OLDER = found(status="final", meta={"lastUpdated": "2025-12-31T00:00:00Z"})
# Either a server added the extension, or an update that removed it was lost.
EXTENSION = [{"url": "urn:x", "valueBoolean": True}]
FIRST = found(Receipt("target", "1"), extension=EXTENSION)
SECOND = found(Receipt("target", "2"), extension=EXTENSION)
NEWER = found(status="final", meta={"versionId": "9", "lastUpdated": "2026-01-02T00:00:00Z"})


class Destination:
    """Gives one response after the other. Notes what was asked."""

    def __init__(self, *responses: Response) -> None:
        self._responses = list(responses)
        self.asked: list[str] = []

    async def look_up(self, opened: Opened, resource_id: str) -> Response:
        assert opened.claim.upload_id == CLAIM.upload_id
        self.asked.append(resource_id)
        return self._responses.pop(0)

    async def search(self, opened: Opened, identifier: str, resource: dict[str, Any]) -> Response:
        assert (opened.claim.upload_id, resource) == (CLAIM.upload_id, RESOURCE)
        self.asked.append(identifier)
        return self._responses.pop(0)


def opened(
    *,
    delivered_id: str | None = None,
    delivered_version: str | None = None,
    empty_searches: int = 0,
    newer_since: datetime | None = None,
    **claim: Any,
) -> Opened:
    return replace(
        OPENED,
        claim=structs.replace(
            CLAIM, empty_searches=empty_searches, newer_since=newer_since, **claim
        ),
        body=orjson.dumps(RESOURCE),
        delivered_id=delivered_id,
        delivered_version=delivered_version,
    )


NEW = opened()
UPDATE = opened(delivered_id="target")
FIRST_DELIVERED = opened(delivered_id="target", delivered_version="1")
RESTORED = opened(newer_since=BACKUP)


@pytest.mark.parametrize(
    ("upload", "keeps_ids", "responses", "asked", "said"),
    [
        (NEW, True, [OURS], ["own"], Found(OURS)),
        (NEW, True, [ABSENT], ["own"], NotFound()),
        (NEW, True, [OLDER], ["own"], NotFound()),
        (NEW, True, [FAILED], ["own"], LookUpFailed(FAILED)),
        (NEW, False, [ABSENT, OURS], ["own", "system|value"], Found(OURS)),
        (NEW, False, [ABSENT, ABSENT], ["own", "system|value"], SearchEmpty()),
        (NEW, False, [ABSENT, FAILED], ["own", "system|value"], LookUpFailed(FAILED)),
        (opened(empty_searches=1), False, [ABSENT, ABSENT], ["own", "system|value"], NotFound()),
        (UPDATE, False, [OLDER], ["target"], NotFound()),
        (UPDATE, True, [ABSENT, OURS], ["target", "own"], Found(OURS)),
        # What a server added is no difference, unless it may be an older version of ours.
        (NEW, True, [FIRST], ["own"], Found(FIRST)),
        (FIRST_DELIVERED, True, [FIRST], ["target"], NotFound()),
        (FIRST_DELIVERED, True, [SECOND], ["target"], Found(SECOND)),
        (UPDATE, True, [SECOND], ["target"], NotFound()),
        (opened(older_in_doubt=True), True, [FIRST], ["own"], NotFound()),
        (opened(record_receipt=b"without an id"), True, [FIRST], ["own"], NotFound()),
        # Newer content counts only after a restore, and only if the ledger does not know it.
        (NEW, True, [NEWER], ["own"], NotFound()),
        (RESTORED, True, [NEWER], ["own"], NewerFound()),
        (RESTORED, True, [OLDER], ["own"], NotFound()),
        (RESTORED, True, [OURS], ["own"], Found(OURS)),
        (replace(RESTORED, delivered_version="9"), True, [NEWER], ["own"], NotFound()),
    ],
)
async def test_the_look_ups_lead_to_one_result(
    upload: Opened, keeps_ids: bool, responses: list[Response], asked: list[str], said: LookedUp
) -> None:
    destination = Destination(*responses)
    look_ups = LookUps(cast("Calls", destination), keeps_ids=keeps_ids)
    assert await look_ups.look_up(upload) == said
    assert destination.asked == asked


async def test_an_upload_that_cannot_be_looked_up_is_not_found() -> None:
    nameless = replace(NEW, body=orjson.dumps({"resourceType": "Observation"}))
    look_ups = LookUps(cast("Calls", Destination()), keeps_ids=True)
    assert await look_ups.look_up(nameless) == NotFound(can_tell=False)
