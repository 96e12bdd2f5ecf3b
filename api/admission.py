"""What this process does at once. A request without free capacity waits, then gets 503.

A request that waits costs little: nothing of its body is read, so TCP slows its sender down.
"""

import asyncio
from typing import Annotated

from fastapi import Depends, Request

from uplift.api.fair_share import FairShare, Part, Receiving
from uplift.ledger.credentials import CredentialRow
from uplift.settings import Settings

_SMALL_BYTES = 64 * 1024
_DEVICE_PART = 8
_LONG_POLL_WAIT_SECONDS = 1.0

_BUSY = (
    "The API is busy with other requests of this credential or of others. Nothing was accepted."
    " Send the request again later."
)
_TOO_MUCH_DATA = (
    "The API receives too much data at the moment. Nothing was accepted. Send the request again"
    " later."
)


class Admission:
    """Decides which requests of this process may go on now. Credentials share each capacity.

    A device token gets an eighth at most, an API key all that nobody else wants.
    """

    def __init__(self, settings: Settings) -> None:
        wait = settings.admission_wait_seconds
        self._requests = settings.max_concurrent_requests
        self._batches = settings.max_concurrent_batches
        self._read_backs = settings.max_concurrent_read_backs
        self._long_polls = settings.max_long_polls
        self._bytes = settings.max_intake_bytes
        self._request = FairShare("request", self._requests, wait_seconds=wait, refusal=_BUSY)
        self._large = FairShare("large_request", 1, wait_seconds=wait, refusal=_BUSY)
        self._batch = FairShare("batch", self._batches, wait_seconds=wait, refusal=_TOO_MUCH_DATA)
        self._read_back = FairShare("read_back", self._read_backs, wait_seconds=wait, refusal=_BUSY)
        self._long_poll = FairShare(
            "long_poll",
            self._long_polls,
            # Who polls again later loses nothing.
            wait_seconds=min(wait, _LONG_POLL_WAIT_SECONDS),
            refusal="Too many long polls are open (UPLIFT_MAX_LONG_POLLS). Ask without `wait`, or"
            " ask again later.",
        )
        self.failed_authentication = asyncio.Lock()
        self.failing = 0
        self._body = FairShare(
            "body",
            self._bytes,
            wait_seconds=wait,
            refusal=_TOO_MUCH_DATA,
            # Large bodies cannot delay small ones.
            small=_SMALL_BYTES,
            reserve=True,
        )

    def request(self, credential: CredentialRow) -> Part:
        """For the work on a request, without the time in which it waits for something."""
        # No key uses the last eighth, so that others begin at once.
        return self._request.part(
            credential.id,
            1,
            most=max(1, self._requests // _DEVICE_PART)
            if credential.user_id is not None
            else self._requests - self._requests // _DEVICE_PART,
        )

    def batch(self, credential: CredentialRow, receiving: Receiving) -> Part:
        """For one batch: one group of lines, and one line that is no longer than a group."""
        return self._part(self._batch, self._batches, credential, 1, receiving)

    def body(self, credential: CredentialRow, receiving: Receiving) -> Part:
        """For a body, or one long line. It begins with nothing and grows by what arrives."""
        return self._part(self._body, self._bytes, credential, 0, receiving)

    def read_back(self, credential: CredentialRow, receiving: Receiving) -> Part:
        """For one request to the destination, and its response."""
        return self._part(self._read_back, self._read_backs, credential, 1, receiving)

    def long_poll(self, credential: CredentialRow, receiving: Receiving) -> Part:
        """For one request that waits for a change."""
        return self._part(self._long_poll, self._long_polls, credential, 1, receiving)

    def large(self, credential: CredentialRow) -> Part:
        """For one request that reads hundreds of rows. Two at once would not be faster."""
        return self._part(self._large, 1, credential, 1)

    @staticmethod
    def _part(
        share: FairShare,
        limit: int,
        credential: CredentialRow,
        size: int,
        receiving: Receiving | None = None,
    ) -> Part:
        most = max(1, limit // _DEVICE_PART) if credential.user_id is not None else None
        return share.part(credential.id, size, most=most, receiving=receiving)


async def get_admission(request: Request) -> Admission:
    """The admission that the app's lifespan created."""
    admission: Admission = request.app.state.admission
    return admission


AdmissionDep = Annotated[Admission, Depends(get_admission)]
