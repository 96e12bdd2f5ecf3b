"""Accepts an upload: seals the resource, commits it, and only then dispatches it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from uplift import traces
from uplift.coalesce import Coalescer
from uplift.destinations.destination import Destination
from uplift.dispatch import Dispatcher
from uplift.errors import BacklogFull, KeyReused, SealError
from uplift.identity import request_digest
from uplift.intake.back_pressure import BackPressure
from uplift.intake.sealed import sealed
from uplift.intake.submission import MAX_INLINE_BYTES, Submission, run_unblocked
from uplift.intake.version_taken import check_version, takes
from uplift.ledger import accepting, idempotency, uploads, users
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database, is_away, is_slow
from uplift.ledger.idempotency import CallersKey, Known
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.uploads import UploadRow
from uplift.ledger.users import LockedUser
from uplift.lifecycle import State
from uplift.problem_types import ProblemType
from uplift.queues import UPLOADS
from uplift.sealing import KeyRing, UserKey


@dataclass(frozen=True, slots=True)
class Accepted:
    """An upload that is committed, and whether it was there before.

    `replayed` if an earlier request with the same idempotency key has this answer: nothing new was
    accepted.
    """

    upload: UploadRow
    duplicate: bool
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class _Offer:
    """A submission whose caller waits."""

    app_user_id: str
    submission: Submission
    queue: str
    by: Actor
    key: CallersKey | None
    trace_parent: str | None


class Acceptor:
    """Accepts submissions of users.

    Small ones that come together share one transaction; each still gets its own result or error.
    """

    def __init__(
        self,
        database: Database,
        key_ring: KeyRing,
        dispatcher: Dispatcher,
        pressure: BackPressure,
        destinations: Mapping[str, Destination],
        id_key: bytes | None = None,
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._dispatcher = dispatcher
        self._pressure = pressure
        self._destinations = destinations
        self._id_key = id_key
        self._together = Coalescer(self._accept_together, concerns_all=is_away, is_slow=is_slow)

    async def accept(
        self,
        app_user_id: str,
        submission: Submission,
        *,
        queue: str = UPLOADS,
        by: Actor = SYSTEM,
        key: CallersKey | None = None,
    ) -> Accepted:
        """Commit a submission of that user.

        If `key` stands for the same request already, this returns that request's upload as it is
        now, with `duplicate` as it was.

        Raises NotFound if there is no such user, VersionNotTaken if their destination does not take
        its FHIR version, KeyReused if the key stands for another request, and BacklogFull if too
        much waits already, unless the key stands for this request.
        """
        offer = _Offer(app_user_id, submission, queue, by, key, traces.current())
        try:
            self._pressure.check(app_user_id)
        except BacklogFull:
            before = await self._find_answer(offer)
            if before is None:
                raise
            return before
        if key is None and len(submission.body) <= MAX_INLINE_BYTES:
            accepted = await self._together(offer)
            if accepted is not None:
                return accepted
        return await self._accept_alone(offer)

    async def _accept_together(self, offers: list[_Offer]) -> list[Accepted | None]:
        """Commit these; None for those whose user is unknown, is locked, or has an unusable key,
        and for those of a FHIR version that is not taken.

        `_accept_alone` does those: it waits, or raises what is wrong.
        """
        async with self._database.transaction() as connection:
            found = await users.lock_users(connection, {offer.app_user_id for offer in offers})
            keys = {name: key for name, user in found.items() if (key := self._key(user))}
            new = [
                self._sealed(offer, found[offer.app_user_id], keys[offer.app_user_id])
                if offer.app_user_id in keys
                and self._is_taken(offer, found[offer.app_user_id].destination)
                else None
                for offer in offers
            ]
            accepted = await self._put_in(connection, found.values(), new)
        self._dispatch_for(offers, accepted)
        return accepted

    def _is_taken(self, offer: _Offer, destination: str) -> bool:
        return takes(self._destinations, destination, offer.submission.fhir_version)

    def _sealed(self, offer: _Offer, user: LockedUser, key: UserKey) -> NewUpload:
        return sealed(
            offer.submission,
            user,
            key,
            queue=offer.queue,
            id_key=self._id_key,
            by=offer.by,
            trace_parent=offer.trace_parent,
        )

    def _key(self, user: LockedUser) -> UserKey | None:
        try:
            return user.key(self._key_ring)
        except SealError:
            return None

    async def _accept_alone(self, offer: _Offer) -> Accepted:
        async with self._database.transaction() as connection:
            user = await users.require_user(connection, offer.app_user_id, lock=True)
            check_version(self._destinations, user.destination, offer.submission.fhir_version)
            key = user.key(self._key_ring)
            new = await run_unblocked(
                len(offer.submission.body), lambda: self._sealed(offer, user, key)
            )
            if offer.key is not None:
                digest = _digest(offer.submission, key)
                before = await _claim(connection, offer.key, digest, new.id)
                if before is not None:
                    return before
            (accepted,) = await self._put_in(connection, [user], [new])
            if accepted is not None and offer.key is not None and accepted.duplicate:
                await idempotency.name_upload(connection, offer.key, accepted.upload.id)
        if accepted is None:
            raise users.no_such_user()
        self._dispatch_for([offer], [accepted])
        return accepted

    async def _find_answer(self, offer: _Offer) -> Accepted | None:
        """What the offer's idempotency key stands for, if it has one that stands for a request.

        Raises as `accept`.
        """
        if offer.key is None:
            return None
        async with self._database.transaction() as connection:
            user = await users.require_user(connection, offer.app_user_id)
            known = await idempotency.find(connection, offer.key)
            if known is None:
                return None
            return await _replay(
                connection, known, _digest(offer.submission, user.key(self._key_ring))
            )

    async def _put_in(
        self,
        connection: AsyncConnection,
        owners: Iterable[LockedUser],
        new: Sequence[NewUpload | None],
    ) -> list[Accepted | None]:
        """Put in what there is of `new`; None where there is none, or its owner is being erased."""
        put = await accepting.put_in(
            connection,
            [each for each in new if each is not None],
            {owner.id: owner for owner in owners},
        )
        found = iter(put)
        rows = [next(found) if each is not None else None for each in new]
        return [Accepted(*row) if row is not None else None for row in rows]

    def _dispatch_for(self, offers: Sequence[_Offer], accepted: Sequence[Accepted | None]) -> None:
        for offer, each in zip(offers, accepted, strict=True):
            # What is late has ended already.
            if each and not each.duplicate and each.upload.state is State.QUEUED:
                self._dispatcher.dispatch(offer.queue, [each.upload.id])


def _digest(submission: Submission, user_key: UserKey) -> bytes:
    labels = submission.labels
    return request_digest(
        user_key.identity_key,
        labels=(
            submission.fhir_version,  # R4 and 4.0.1 are one version
            labels.source,
            labels.record_id,
            labels.source_url,
            labels.received_at,
            "force" if labels.force else None,
        ),
        body=submission.body,
    )


async def _claim(
    connection: AsyncConnection, key: CallersKey, digest: bytes, upload_id: UUID
) -> Accepted | None:
    """Claim an idempotency key for an upload; what it stands for, if that is the same request."""
    if await idempotency.claim(connection, key, digest, upload_id):
        return None
    known = await idempotency.find(connection, key)
    if known is None:
        raise users.no_such_user()  # their device token is gone: they are being erased
    before = await _replay(connection, known, digest)
    if before is None:
        await idempotency.claim(connection, key, digest, upload_id, reset=True)
    return before


async def _replay(connection: AsyncConnection, known: Known, digest: bytes) -> Accepted | None:
    """The upload of the request of that digest; None if it is not kept any more.

    Raises KeyReused if that was another request.
    """
    row = (await uploads.get_uploads(connection, [known.upload_id])).get(known.upload_id)
    if row is None:
        return None  # its user was erased, and this is another of the same name
    if known.request_digest != digest:
        raise KeyReused(
            ProblemType.IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key came with another request less than a day ago. Send each"
            " request with a key of its own, and the same key only with the same request again.",
        )
    # Both are the time of one transaction, if it accepted the upload and claimed the key.
    return Accepted(row, duplicate=row.created_at != known.since, replayed=True)
