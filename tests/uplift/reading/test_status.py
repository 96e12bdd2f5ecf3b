"""Statuses, opened."""

from datetime import UTC, datetime
from uuid import UUID

import orjson
import pytest

from uplift.errors import SealError
from uplift.ledger.uploads import UploadRow, receipt_context
from uplift.ledger.users import key_context
from uplift.lifecycle import State
from uplift.reading.status import Receipt, StatusOpener
from uplift.sealing import KeyRing, UserKey

_USER = UUID(int=1)
_UPLOAD = UUID(int=2)
_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
_KEY_RING = KeyRing({"k1": bytes(32)})
_KEY = UserKey.generate()


def _row(sealed_receipt: bytes | None) -> UploadRow:
    wrapped = _KEY_RING.wrap(_KEY, key_context(_USER))
    return UploadRow(
        id=_UPLOAD,
        user_id=_USER,
        app_user_id="alice",
        batch_id=None,
        destination="oneup",
        fhir_version="R4",
        resource_type="Condition",
        state=State.DELIVERED,
        reason=None,
        revision=3,
        attempts=1,
        maybe_sent=True,
        possible_duplicate=False,
        maybe_overwritten=False,
        last_response="http_201",
        issues=None,
        sealed_receipt=sealed_receipt,
        master_key_id=wrapped.master_id,
        wrapped_key=wrapped.sealed,
        next_attempt_at=None,
        due_in=None,
        created_at=_AT,
        updated_at=_AT,
        delivered_at=_AT,
    )


def _sealed(receipt: dict[str, str | None], context: bytes = receipt_context(_UPLOAD)) -> bytes:
    return _KEY.seal(orjson.dumps(receipt), context)


@pytest.mark.parametrize(
    ("kept", "opened"),
    [
        (
            {"id": "A1-77", "version": "3", "stored_at": "2026-01-01T12:00:00Z", "sha256": "5e"},
            Receipt("A1-77", "3", _AT, "5e"),
        ),
        ({"id": "A1-77", "version": "3"}, Receipt("A1-77", "3")),
        ({"id": None, "version": None}, Receipt(None, None)),
    ],
)
def test_a_status_has_its_receipt_opened(kept: dict[str, str | None], opened: Receipt) -> None:
    row = _row(_sealed(kept))
    status = StatusOpener(_KEY_RING).open(row)
    assert (status.upload, status.receipt) == (row, opened)


def test_a_status_without_a_receipt_needs_no_key() -> None:
    status = StatusOpener(KeyRing({"another": bytes(32)})).open(_row(None))
    assert status.receipt is None


def test_a_receipt_of_another_upload_does_not_open() -> None:
    row = _row(_sealed({"id": "A1-77", "version": "3"}, receipt_context(UUID(int=3))))
    with pytest.raises(SealError):
        StatusOpener(_KEY_RING).open(row)
