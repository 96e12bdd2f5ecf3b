"""The operations on uploads and batches, each as a value that a client makes."""

from collections.abc import Iterable
from datetime import datetime
from uuid import uuid4

from .messages import Call, Page, Reply, Request, json_of
from .models import (
    Attempt,
    AttemptList,
    Batch,
    BatchLine,
    BatchPage,
    BatchStatus,
    LinePage,
    RedriveReport,
    TryNowReport,
    Upload,
    UploadPage,
)
from .records import Record, Resource, envelope
from .requests import JSON, listed, query, quoted, sending

_upload = json_of(Upload)


def submit(
    resource: Resource,
    *,
    fhir_version: str,
    user: str | None = None,
    source: str | None = None,
    record_id: str | None = None,
    source_url: str | None = None,
    received_at: str | None = None,
    force: bool = False,
    idempotency_key: str | None = None,
) -> Call[Upload]:
    """Submit one FHIR resource. When this returns, Uplift keeps it and will deliver it.

    Args:
        resource: as bytes or text, it is delivered byte by byte.
        fhir_version: `DSTU2`, `STU3` or `R4`.
        user: your own name for the person; a device token needs none.
        source: where the record comes from.
        record_id: the record's id there.
        source_url: its address at the FHIR server that it is from.
        received_at: when the phone got it: ISO 8601, with a zone.
        force: it counts as newer than what came before.
        idempotency_key: your own name for this submission. By default the client makes one; its
            repetitions have the same.
    """
    key = idempotency_key if idempotency_key is not None else str(uuid4())
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    record = Record(resource, fhir_version, source, record_id, source_url, received_at, force=force)
    body = envelope(record, user)
    headers = {**JSON, "Idempotency-Key": f'"{quoted}"'}
    return Call(Request("POST", "/v1/uploads", body, headers), _upload)


def upload(upload_id: str) -> Call[Upload]:
    """The status of an upload."""
    return Call(Request("GET", _upload_path(upload_id)), _upload)


def poll_upload(upload_id: str, wait: float, etag: str | None) -> Call[tuple[Reply, Upload | None]]:
    """A long poll: the reply, and the status if it is not the one with that ETag."""
    target = f"{_upload_path(upload_id)}?wait={wait:.3f}"
    headers = {"If-None-Match": etag} if etag else {}

    def read(reply: Reply) -> tuple[Reply, Upload | None]:
        return reply, None if reply.status == 304 else _upload(reply)

    return Call(Request("GET", target, headers=headers), read)


def uploads(
    *,
    user: str | None = None,
    status: Iterable[str] = (),
    reason: str | None = None,
    resource_type: str | None = None,
    fhir_version: str | None = None,
    batch: str | None = None,
    updated_since: datetime | None = None,
    updated_before: datetime | None = None,
    order: str = "desc",
    limit: int = 500,
) -> Call[Page[Upload]]:
    """Uploads that match every filter, the newest first; with the order `asc`, the oldest first.

    `limit` is for one page.
    """
    filters = query(
        status=list(status),
        user=user,
        reason=reason,
        resourceType=resource_type,
        fhirVersion=fhir_version,
        batch=batch,
        updatedSince=updated_since and updated_since.isoformat(),
        updatedBefore=updated_before and updated_before.isoformat(),
        order=order,
        limit=limit,
    )
    return listed(f"/v1/uploads{filters}", UploadPage, lambda page: page.uploads)


def attempts(upload_id: str) -> Call[list[Attempt]]:
    """The latest 100 attempts to deliver an upload, newest first."""
    decode = json_of(AttemptList)
    target = f"{_upload_path(upload_id)}/attempts"
    return Call(Request("GET", target), lambda reply: decode(reply).attempts)


def cancel(upload_id: str) -> Call[Upload]:
    """Cancel an upload. If it may have been sent, Uplift finds out: see `cancel_requested`."""
    return Call(Request("DELETE", _upload_path(upload_id)), _upload)


def redrive(upload_id: str) -> Call[Upload]:
    """Queue a rejected, refused or expired upload again."""
    return Call(Request("POST", f"{_upload_path(upload_id)}/redrive"), _upload)


def redrive_many(
    *,
    everything: bool = False,
    status: Iterable[str] = (),
    reason: str | None = None,
    resource_type: str | None = None,
    fhir_version: str | None = None,
    user: str | None = None,
    batch: str | None = None,
    updated_since: datetime | None = None,
    updated_before: datetime | None = None,
    after: str | None = None,
) -> Call[RedriveReport]:
    """Redrive up to 10,000 dead letters that match every filter; `after` goes on from a report.

    `everything` selects all dead letters, and takes no filter.
    """
    wanted = {
        "all": everything or None,
        "status": list(status) or None,
        "reason": reason,
        "resourceType": resource_type,
        "fhirVersion": fhir_version,
        "user": user,
        "batch": batch,
        "updatedSince": updated_since,
        "updatedBefore": updated_before,
        "after": after,
    }
    return Call(sending("POST", "/v1/uploads/redrive", wanted), json_of(RedriveReport))


def try_now(upload_id: str) -> Call[Upload]:
    """Try a queued upload now that waits for a later attempt."""
    return Call(Request("POST", f"{_upload_path(upload_id)}/try-now"), _upload)


def try_many_now(
    *,
    everything: bool = False,
    reason: str | None = None,
    resource_type: str | None = None,
    fhir_version: str | None = None,
    user: str | None = None,
    batch: str | None = None,
    updated_since: datetime | None = None,
    updated_before: datetime | None = None,
) -> Call[TryNowReport]:
    """Try all waiting uploads now that match every filter.

    `everything` selects all of them, and takes no filter.
    """
    wanted = {
        "all": everything or None,
        "reason": reason,
        "resourceType": resource_type,
        "fhirVersion": fhir_version,
        "user": user,
        "batch": batch,
        "updatedSince": updated_since,
        "updatedBefore": updated_before,
    }
    return Call(sending("POST", "/v1/uploads/try-now", wanted), json_of(TryNowReport))


def batch_request(
    lines: bytes, *, user: str | None, fhir_version: str | None, source: str | None
) -> Call[list[BatchLine]]:
    """Submit lines of NDJSON in one request. Accepted lines become duplicates if it is repeated."""
    target = f"/v1/batches{query(user=user, fhirVersion=fhir_version, source=source)}"
    headers = {"Content-Type": "application/x-ndjson"}
    decode = json_of(LinePage)
    return Call(Request("POST", target, lines, headers), lambda reply: decode(reply).lines)


def batches(*, user: str | None = None, order: str = "desc", limit: int = 500) -> Call[Page[Batch]]:
    """Batches, the newest first; with the order `asc`, the oldest first."""
    target = f"/v1/batches{query(user=user, order=order, limit=limit)}"
    return listed(target, BatchPage, lambda page: page.batches)


def batch(batch_id: str) -> Call[BatchStatus]:
    """A batch in numbers, and the progress of its uploads."""
    return Call(Request("GET", f"/v1/batches/{quoted(batch_id)}"), json_of(BatchStatus))


def batch_lines(batch_id: str, *, limit: int = 1000) -> Call[Page[BatchLine]]:
    """The lines of a batch, with the current statuses of their uploads."""
    target = f"/v1/batches/{quoted(batch_id)}/lines?limit={limit}"
    return listed(target, LinePage, lambda page: page.lines)


def _upload_path(upload_id: str) -> str:
    return f"/v1/uploads/{quoted(upload_id)}"
