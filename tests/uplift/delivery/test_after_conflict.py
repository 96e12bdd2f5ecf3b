"""What follows where a PUT was refused because of what is there: the whole table."""

from dataclasses import replace
from typing import Any

import pytest

from tests.uplift.destinations.known import hapi
from uplift.delivery.after_conflict import Next, Refused, after_conflict
from uplift.destinations.destination import OnDeleted, OnForeign
from uplift.destinations.receipts import Receipt
from uplift.destinations.responses import Response, ResponseKind

SENT = {"resourceType": "Observation", "id": "u1", "status": "final"}
OTHER = {**SENT, "status": "amended"}

CREATE = Refused(if_match=None, older_in_doubt=False)
UPDATE = Refused(if_match="1", older_in_doubt=False)


def found(resource: dict[str, Any], version: str | None) -> Response:
    receipt = Receipt("u1", version)
    return Response(ResponseKind.FOUND, "http_200", 200, receipt=receipt, resource=resource)


GONE = Response(ResponseKind.ABSENT, "http_410", 410)
NEVER = Response(ResponseKind.ABSENT, "http_404", 404)
FAILED = Response(ResponseKind.UNKNOWN, "http_503", 503)


@pytest.mark.parametrize(
    ("refused", "read", "expected"),
    [
        # Ours is there, whoever was first.
        (CREATE, found(SENT, "1"), Next.DELIVERED),
        (UPDATE, found(SENT, "2"), Next.DELIVERED),
        # Nothing but a lock.
        (CREATE, found(OTHER, "1"), Next.SEND_AGAIN),
        (CREATE, NEVER, Next.SEND_AGAIN),
        (CREATE, GONE, Next.SEND_AGAIN),
        (UPDATE, found(OTHER, "1"), Next.SEND_AGAIN),
        (UPDATE, found(SENT, "1"), Next.SEND_AGAIN),  # it only removes what servers add
        # Another version.
        (UPDATE, found(OTHER, "2"), Next.OVERWRITE_FOREIGN),
        (UPDATE, found(OTHER, None), Next.OVERWRITE_FOREIGN),
        (replace(UPDATE, older_in_doubt=True), found(OTHER, "2"), Next.OVERWRITE),
        # It is gone.
        (UPDATE, GONE, Next.DELETED),
        (UPDATE, NEVER, Next.DELETED),
        # The read told nothing.
        (CREATE, FAILED, Next.READ_AGAIN),
        (UPDATE, FAILED, Next.READ_AGAIN),
        (UPDATE, Response(ResponseKind.UNAUTHORIZED, "http_401", 401), Next.READ_AGAIN),
        # Nothing tells which one is ours.
        (UPDATE, Response(ResponseKind.UNKNOWN, "several_match", 200), Next.SEVERAL),
    ],
)
def test_a_read_tells_what_a_refusal_means(
    refused: Refused, read: Response, expected: Next
) -> None:
    ours = read.resource == SENT
    assert after_conflict(refused, read, hapi(), is_ours=ours) is expected


@pytest.mark.parametrize(
    ("changed", "read", "expected"),
    [
        ({"on_foreign": OnForeign.HOLD}, found(OTHER, "2"), Next.FOREIGN),
        ({"on_deleted": OnDeleted.CREATE}, GONE, Next.CREATE),
    ],
)
def test_the_settings_decide_about_what_others_did(
    changed: dict[str, Any], read: Response, expected: Next
) -> None:
    assert after_conflict(UPDATE, read, hapi(**changed), is_ours=False) is expected


def test_an_own_version_is_overwritten_whatever_the_settings_say_of_others() -> None:
    doubtful = replace(UPDATE, older_in_doubt=True)
    holding = hapi(on_foreign=OnForeign.HOLD)
    found_now = after_conflict(doubtful, found(OTHER, "2"), holding, is_ours=False)
    assert found_now is Next.OVERWRITE


def test_what_a_person_sends_again_goes_over_what_others_did() -> None:
    decided = replace(UPDATE, decided=True)
    holding = hapi(on_foreign=OnForeign.HOLD)
    others = after_conflict(decided, found(OTHER, "2"), holding, is_ours=False)
    assert others is Next.OVERWRITE_FOREIGN
    assert after_conflict(decided, GONE, holding, is_ours=False) is Next.CREATE
