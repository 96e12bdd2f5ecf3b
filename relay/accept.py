"""Takes a resource in: read, sealed, committed, and only then rung for."""

import re
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
from uuid_utils.compat import uuid7

from relay.bell import Bell
from relay.errors import NotFound, UnreadableUpload
from relay.fhir.versions import FhirVersion
from relay.identity import content_digest, record_identity
from relay.ledger import uploads, users
from relay.ledger.database import Database
from relay.ledger.uploads import NewUpload, UploadRow
from relay.queues import UPLOADS
from relay.sealing import KeyRing
from relay.settings import Settings

_NAME_MOST = 1024
_TYPE = re.compile(r"[A-Za-z]{1,64}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.]{1,16}", re.ASCII)


class _Envelope(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw
    user: str | None = None
    fhir_version: str | None = None
    source: str | None = None
    record_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What comes with a resource from outside of it, in the query or in the envelope."""

    user: str | None = None
    fhir_version: str | None = None
    source: str | None = None
    record_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A readable resource: its bytes as they came, and what they say."""

    labels: Labels
    fhir_version: str
    resource_type: str
    resource: dict[str, Any]
    body: bytes


def read(body: bytes, labels: Labels) -> Submission:
    """Read a bare resource, or an envelope around one.

    What the envelope names goes before the same name in `labels`. Raises UnreadableUpload that
    says what to change; judging the resource itself is the worker's.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnreadableUpload("The body is not JSON (RFC 8259, UTF-8).") from None
    if not isinstance(value, dict):
        raise UnreadableUpload("The body is not a JSON object.")
    if "resourceType" not in value and "resource" in value:
        body, labels = _open_envelope(body, labels)
        value = value["resource"]
        if not isinstance(value, dict):
            raise UnreadableUpload("The envelope's resource is not a JSON object.")
    resource_type = value.get("resourceType")
    if not isinstance(resource_type, str) or not _TYPE.fullmatch(resource_type):
        raise UnreadableUpload(
            "There is no resourceType that could be a FHIR type. Send a FHIR resource, or an"
            " envelope {user, fhirVersion, source, recordId, resource}."
        )
    if labels.fhir_version is None:
        raise UnreadableUpload(
            "There is no fhirVersion. Send what HealthKit says: DSTU2, STU3 or R4"
            " (or 1.0.2, 3.0.1, 4.0.1)."
        )
    if not _VERSION.fullmatch(labels.fhir_version):
        raise UnreadableUpload("fhirVersion is not a FHIR version such as R4 or 4.0.1.")
    for name, text in (("source", labels.source), ("recordId", labels.record_id)):
        if text is not None and len(text) > _NAME_MOST:
            raise UnreadableUpload(f"{name} has more than {_NAME_MOST} characters.")
    version = FhirVersion.parse(labels.fhir_version)
    return Submission(
        labels=labels,
        fhir_version=version.value if version else labels.fhir_version,
        resource_type=resource_type,
        resource=value,
        body=body,
    )


def _open_envelope(body: bytes, labels: Labels) -> tuple[bytes, Labels]:
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except msgspec.ValidationError as error:
        # Its text names the field and the types, never a value.
        raise UnreadableUpload(f"The envelope is wrong: {error}.") from None
    except msgspec.DecodeError:
        raise UnreadableUpload("The body is not JSON (RFC 8259, UTF-8).") from None
    return bytes(envelope.resource), Labels(
        user=envelope.user if envelope.user is not None else labels.user,
        fhir_version=(
            envelope.fhir_version if envelope.fhir_version is not None else labels.fhir_version
        ),
        source=envelope.source if envelope.source is not None else labels.source,
        record_id=envelope.record_id if envelope.record_id is not None else labels.record_id,
    )


@dataclass(frozen=True, slots=True)
class Accepted:
    """An upload that is committed, and whether it was there before."""

    upload: UploadRow
    duplicate: bool


class Acceptor:
    """Keeps submissions of users."""

    def __init__(self, database: Database, ring: KeyRing, bell: Bell, settings: Settings) -> None:
        self._database = database
        self._ring = ring
        self._bell = bell
        self._ring_seconds = settings.ring_seconds

    async def accept(
        self, app_user_id: str, submission: Submission, *, queue: str = UPLOADS
    ) -> Accepted:
        """Commit a submission of that user. Raises NotFound if there is no such user."""
        async with self._database.transaction() as connection:
            user = await users.find_user(connection, app_user_id)
            if user is None:
                raise NotFound(
                    "There is no such user. Create them first: POST /v1/users, or"
                    " `uplift users add`."
                )
            upload_id, duplicate = await uploads.put_in(
                connection,
                self._sealed(user, submission, queue),
                ring_seconds=self._ring_seconds,
            )
            rows = await uploads.get_uploads(connection, [upload_id])
        if not duplicate:
            self._bell.ring(queue, [upload_id])
        return Accepted(rows[upload_id], duplicate)

    def _sealed(self, user: users.UserRow, submission: Submission, queue: str) -> NewUpload:
        key = user.key(self._ring)
        digest = content_digest(key.identity_key, submission.resource)
        record_id = submission.labels.record_id or submission.resource.get("id")
        upload_id = uuid7()
        return NewUpload(
            id=upload_id,
            user_id=user.id,
            identity=record_identity(
                key.identity_key,
                fhir_version=submission.fhir_version,
                resource_type=submission.resource_type,
                source=submission.labels.source,
                record_id=record_id if isinstance(record_id, str) else None,
                digest=digest,
            ),
            digest=digest,
            fhir_version=submission.fhir_version,
            resource_type=submission.resource_type,
            body_bytes=len(submission.body),
            sealed_body=key.seal(submission.body, uploads.body_context(upload_id)),
            queue=queue,
        )
