"""A status as JSON is what its model says."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from uplift.api.schemas import UploadStatus, dump_status
from uplift.ledger.uploads import UploadRow
from uplift.lifecycle import State
from uplift.reading.status import Receipt, Status

_AT = datetime(2026, 11, 30, 1, 2, 3, 40, tzinfo=ZoneInfo("UTC"))
_NEW = UploadRow(
    id=UUID(int=1),
    user_id=UUID(int=2),
    app_user_id='al"ice \u2028',
    batch_id=None,
    destination="oneup",
    fhir_version="R4",
    resource_type="Condition",
    state=State.QUEUED,
    reason="new",
    revision=1,
    attempts=0,
    maybe_sent=False,
    possible_duplicate=False,
    maybe_overwritten=False,
    last_response=None,
    issues=None,
    sealed_receipt=None,
    master_key_id="a",
    wrapped_key=b"",
    next_attempt_at=_AT,
    due_in=0.0,
    created_at=_AT,
    updated_at=datetime(2026, 11, 30, tzinfo=UTC),
    delivered_at=None,
)
_ISSUE = {"severity": "error", "code": "required", "expression": ["a"], "diagnostics": "No."}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"batch_id": UUID(int=9), "reason": None, "app_user_id": "ä", "cancel_requested": True},
        {"state": State.DELIVERED, "delivered_at": _AT, "next_attempt_at": None, "attempts": 3},
        {"maybe_sent": True, "possible_duplicate": True, "maybe_overwritten": True},
        {"last_response": "http_503", "issues": {"total": 1, "issue": [_ISSUE]}},
    ],
)
@pytest.mark.parametrize("receipt", [None, Receipt("1", None)])
@pytest.mark.parametrize("duplicate", [True, False])
def test_a_status_is_dumped_as_its_model_is(
    changed: dict[str, Any], receipt: Receipt | None, duplicate: bool
) -> None:
    assert not changed.keys() - {each.name for each in fields(UploadRow)}
    status = Status(replace(_NEW, **changed), receipt)
    model = UploadStatus.of(status, duplicate=duplicate)
    assert dump_status(status, duplicate=duplicate) == model.model_dump_json(by_alias=True).encode()
