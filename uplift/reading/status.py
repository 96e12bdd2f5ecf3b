"""Opens the statuses of uploads: the ledger keeps them sealed, and only the key ring reads them."""

from dataclasses import dataclass
from datetime import datetime

import orjson

from uplift.ledger.uploads import UploadRow, receipt_context
from uplift.ledger.users import key_context
from uplift.sealing import KeyRing, WrappedKey


@dataclass(frozen=True, slots=True)
class Receipt:
    """What 1upHealth calls the resource it stored.

    `stored_at` is when. `sha256` is the digest of the upload's bytes in hexadecimal digits, and
    `sent_sha256` that of the bytes that were sent, where a destination gets another form.
    """

    id: str | None
    version: str | None
    stored_at: datetime | None = None
    sha256: str | None = None
    sent_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """An upload's status with its receipt opened; without a receipt 1upHealth has named nothing."""

    upload: UploadRow
    receipt: Receipt | None


class StatusOpener:
    """Opens what is sealed in a status with the user's data key."""

    def __init__(self, key_ring: KeyRing) -> None:
        self._key_ring = key_ring

    def open(self, upload: UploadRow) -> Status:
        """The status of that row.

        Raises SealError if the key ring cannot open the user's data key or the receipt.
        """
        if upload.sealed_receipt is None:
            return Status(upload, None)
        wrapped = WrappedKey(upload.master_key_id, upload.wrapped_key)
        key = self._key_ring.unwrap(wrapped, key_context(upload.user_id))
        named = orjson.loads(key.open(upload.sealed_receipt, receipt_context(upload.id)))
        stored_at = named.get("stored_at")
        return Status(
            upload,
            Receipt(
                id=named["id"],
                version=named["version"],
                stored_at=datetime.fromisoformat(stored_at) if stored_at is not None else None,
                sha256=named.get("sha256"),
                sent_sha256=named.get("sent_sha256"),
            ),
        )
