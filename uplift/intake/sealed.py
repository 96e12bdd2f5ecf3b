"""A submission as the ledger keeps it: identified, digested, and sealed with its user's key."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from uplift.destinations.derived_ids import derived_id
from uplift.identity import (
    content_digest,
    record_identity,
    server_key,
    server_of,
    source_key,
    upstream_key,
)
from uplift.intake.submission import Submission
from uplift.ledger import uploads
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.users import LockedUser
from uplift.ledger.watermarks import first_watermark
from uplift.sealing import UserKey
from uplift.watermark import NO_TIMES, Times, comparable

# In no label, so that no source has this name.
_SERVER_AS_SOURCE = "\0server\0"


def sealed(
    submission: Submission,
    user: LockedUser,
    key: UserKey,
    *,
    queue: str,
    id_key: bytes | None = None,
    by: Actor = SYSTEM,
    batch_id: UUID | None = None,
    trace_parent: str | None = None,
) -> NewUpload:
    """The submission, ready to be put in on its way to the user's destination.

    `id_key` is that of the deployment; without one, no id is derived. A record without a label of
    its source is one of its server's, if its URL names one.
    """
    labels, identity_key = submission.labels, key.identity_key
    digest = content_digest(identity_key, submission.content)
    resource_id = submission.resource.get("id")
    record_id = labels.record_id or (resource_id if isinstance(resource_id, str) else None)
    server = server_of(labels.source_url, submission.resource_type) if labels.source_url else None
    source = labels.source or (_SERVER_AS_SOURCE + server if server else "")
    sources = source_key(identity_key, source) if source else None
    servers = server_key(identity_key, server) if server else None
    times = _times(submission, servers)
    upload_id, first_id = uuid7(), uuid7()
    return NewUpload(
        id=upload_id,
        user_id=user.id,
        identity=record_identity(
            identity_key,
            fhir_version=submission.fhir_version,
            resource_type=submission.resource_type,
            source=source,
            record_id=record_id,
            digest=digest,
        ),
        digest=digest,
        fhir_version=submission.fhir_version,
        resource_type=submission.resource_type,
        body_bytes=len(submission.body),
        sealed_body=key.seal(submission.body, uploads.body_context(upload_id)),
        destination=user.destination,
        derived_id=(
            derived_id(
                id_key,
                app_user_id=user.app_user_id,
                source=source,
                fhir_version=submission.fhir_version,
                resource_type=submission.resource_type,
                record_id=record_id,
                content=submission.content,
            )
            if id_key is not None
            else None
        ),
        queue=queue,
        key=key,
        record_id=first_id,
        times=times,
        sealed_watermark=first_watermark(first_id, key, times),
        force=bool(labels.force),
        upstream_key=(
            upstream_key(
                identity_key,
                fhir_version=submission.fhir_version,
                resource_type=submission.resource_type,
                resource_id=resource_id,
            )
            if isinstance(resource_id, str) and resource_id
            else None
        ),
        source_key=sources,
        server_key=servers,
        batch_id=batch_id,
        by=by,
        trace_parent=trace_parent,
    )


def _times(submission: Submission, server: bytes | None) -> Times:
    meta = submission.resource.get("meta")
    updated = meta.get("lastUpdated") if isinstance(meta, dict) else None
    received = submission.labels.received_at
    if updated is None and not received:
        return NO_TIMES
    now = datetime.now(UTC)
    return Times(
        updated=comparable(updated, accepted_at=now),
        received=comparable(received, accepted_at=now),
        server=server.hex() if server else None,
    )
