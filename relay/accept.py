"""Takes a resource in: read, sealed, committed, and only then rung for."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import orjson
from uuid_utils.compat import uuid7

from relay.bell import Bell
from relay.errors import NotFound, UnreadableUpload
from relay.fhir.versions import FhirVersion
from relay.identity import canonical, content_digest, record_identity
from relay.ledger import audit, uploads, users
from relay.ledger.audit import SYSTEM, Action, Actor
from relay.ledger.database import Database
from relay.ledger.uploads import NewUpload, UploadRow
from relay.queues import UPLOADS
from relay.sealing import KeyRing, UserKey
from relay.settings import Settings

NO_SUCH_USER = "There is no such user. Create them first: POST /v1/users, or `uplift users add`."

# For less, going to a thread and back takes longer than it spares the event loop.
_INLINE_BYTES_MOST = 64 * 1024
NOT_JSON = (
    "The body is not JSON that can be kept: RFC 8259 in UTF-8, no number beyond a double, no half"
    " of a surrogate pair, at most 200 levels deep."
)
_NAME_MOST = 1024
_TYPE = re.compile(r"[A-Za-z]{1,64}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.]{1,16}", re.ASCII)
# Postgres takes no U+0000 in a text, and UTF-8 no half of a surrogate pair.
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")

_Done = TypeVar("_Done")


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
    """A readable resource: its bytes as they came, and what they say.

    `content` is `relay.identity.canonical` of it.
    """

    labels: Labels
    fhir_version: str
    resource_type: str
    resource: dict[str, Any]
    content: bytes
    body: bytes


def read(body: bytes, labels: Labels) -> Submission:
    """Read a bare resource, or an envelope around one.

    What the envelope names goes before the same name in `labels`. Raises UnreadableUpload that
    says what to change; judging the resource itself is the worker's.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnreadableUpload(NOT_JSON) from None
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
    for name, text in (
        ("user", labels.user),
        ("source", labels.source),
        ("recordId", labels.record_id),
    ):
        _check_name(name, text or "")
    try:
        content = canonical(value)
    except ValueError as error:
        raise UnreadableUpload(f"The resource cannot be kept. {error}") from None
    version = FhirVersion.parse(labels.fhir_version)
    return Submission(
        labels=labels,
        fhir_version=version.value if version else labels.fhir_version,
        resource_type=resource_type,
        resource=value,
        content=content,
        body=body,
    )


async def read_apart(body: bytes, labels: Labels) -> Submission:
    """`read`, without holding the event loop up for a large body."""
    return await _apart(len(body), lambda: read(body, labels))


async def _apart(size: int, work: Callable[[], _Done]) -> _Done:
    """Do what takes time in proportion to `size`, in bytes: in a thread if that is long."""
    return await asyncio.to_thread(work) if size > _INLINE_BYTES_MOST else work()


def _check_name(name: str, text: str) -> None:
    if len(text) > _NAME_MOST:
        raise UnreadableUpload(f"{name} has more than {_NAME_MOST} characters.")
    if _UNKEEPABLE.search(text):
        raise UnreadableUpload(f"{name} holds U+0000, or half of a surrogate pair.")


def _open_envelope(body: bytes, labels: Labels) -> tuple[bytes, Labels]:
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except msgspec.ValidationError as error:
        # Its text names the field and the types, never a value.
        raise UnreadableUpload(f"The envelope is wrong: {error}.") from None
    except msgspec.DecodeError:
        raise UnreadableUpload(NOT_JSON) from None
    except RecursionError:
        raise UnreadableUpload("The envelope's arrays and objects are nested too deep.") from None
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
        self,
        app_user_id: str,
        submission: Submission,
        *,
        queue: str = UPLOADS,
        by: Actor = SYSTEM,
    ) -> Accepted:
        """Commit a submission of that user. Raises NotFound if there is no such user."""
        async with self._database.transaction() as connection:
            user = await users.find_user(connection, app_user_id, hold=True)
            if user is None:
                raise NotFound(NO_SUCH_USER)
            user_id, key = user.id, user.key(self._ring)
            new = await _apart(
                len(submission.body), lambda: sealed(submission, user_id, key, queue=queue)
            )
            ((upload_id, duplicate),) = await uploads.put_in(
                connection, [new], ring_seconds=self._ring_seconds
            )
            if not duplicate:
                await audit.note_uploads(connection, by, Action.UPLOAD_ACCEPTED, [upload_id])
            rows = await uploads.get_uploads(connection, [upload_id])
            if upload_id not in rows:
                # Their erasing began meanwhile, and what it began with is not shown any more.
                raise NotFound(NO_SUCH_USER)
        if not duplicate:
            self._bell.ring(queue, [upload_id])
        return Accepted(rows[upload_id], duplicate)


def sealed(
    submission: Submission,
    user_id: UUID,
    key: UserKey,
    *,
    queue: str,
    batch_id: UUID | None = None,
) -> NewUpload:
    """A submission as the ledger keeps it: identified, digested and sealed with the user's key."""
    digest = content_digest(key.identity_key, submission.content)
    record_id = submission.labels.record_id or submission.resource.get("id")
    upload_id = uuid7()
    return NewUpload(
        id=upload_id,
        user_id=user_id,
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
        batch_id=batch_id,
    )
