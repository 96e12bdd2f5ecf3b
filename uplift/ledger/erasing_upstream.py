"""Users who are erased at their destinations too: what they have there, record by record.

Such a user lives on, with key and grant, until what is there is deleted. Nothing of theirs is taken
meanwhile, and nothing is sent. What may be at 1upHealth is looked up first, as if it was cancelled.
Then each record becomes rows of `upstream_deletions`, and goes from the ledger.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from uplift.ledger import cancelling, erasing
from uplift.ledger.audit import SYSTEM, Action, Actor, note
from uplift.ledger.tables import User
from uplift.ledger.users import key_context
from uplift.sealing import KeyRing, UserKey, WrappedKey


@dataclass(frozen=True, slots=True)
class Erased:
    """A user who is erased upstream, locked against others who do the same."""

    id: UUID
    app_user_id: str
    wrapped_key: WrappedKey
    destination: str

    def key(self, key_ring: KeyRing) -> UserKey:
        """The user's data key. Raises SealError if the key ring cannot unwrap it."""
        return key_ring.unwrap(self.wrapped_key, key_context(self.id))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: since when, and how many uploads are being sent or looked up.

    `left` is how many records and resources are not gone yet, `lost` how many may be at a
    destination while nobody knows where. `problem` is a destination's last response that kept a
    resource from being deleted, as a code.
    """

    since: datetime
    sending: int
    left: int
    lost: int
    problem: str | None


async def begin(connection: AsyncConnection, app_user_id: str, by: Actor) -> Erased | None:
    """Begin for the living user of that name; None if there is none, or if it has begun."""
    user_id = await connection.scalar(
        select(User.id)
        .where(
            User.app_user_id == app_user_id,
            User.erased_at.is_(None),
            User.erasing_upstream_since.is_(None),
        )
        # As in `erasing`, it does not wait for uploads that come in.
        .with_for_update(key_share=True)
    )
    if user_id is None:
        return None
    await note(connection, by, Action.UPSTREAM_ERASURE_REQUESTED, user_id=user_id)
    await connection.execute(
        update(User).where(User.id == user_id).values(erasing_upstream_since=text("now()"))
    )
    await erasing.remove_devices(connection, user_id)
    return await lock(connection, user_id)


async def some(connection: AsyncConnection, *, limit: int) -> Sequence[UUID]:
    """Up to `limit` users who are erased upstream, chosen by chance."""
    return (
        await connection.scalars(
            select(User.id)
            .where(User.erasing_upstream_since.is_not(None), User.erased_at.is_(None))
            .order_by(text("random()"))
            .limit(limit)
        )
    ).all()


async def lock(connection: AsyncConnection, user_id: UUID) -> Erased | None:
    """The user, locked; None if they are not erased upstream any more, or somebody has the lock."""
    row = (
        await connection.execute(
            select(
                User.id, User.app_user_id, User.master_key_id, User.wrapped_key, User.destination
            )
            .where(
                User.id == user_id,
                User.erasing_upstream_since.is_not(None),
                User.erased_at.is_(None),
            )
            .with_for_update(skip_locked=True, key_share=True)
        )
    ).one_or_none()
    if row is None:
        return None
    wrapped = WrappedKey(row.master_key_id or "", row.wrapped_key or b"")
    return Erased(row.id, row.app_user_id or "", wrapped, row.destination)


_DESTINATIONS = text("""
    SELECT destination FROM users WHERE id = :user_id
    UNION SELECT destination FROM uploads WHERE user_id = :user_id
    UNION SELECT destination FROM tombstones WHERE user_id = :user_id
    UNION SELECT d.destination FROM records AS r JOIN deliveries AS d ON d.record_id = r.id
        WHERE r.user_id = :user_id
""")


async def destinations_of(connection: AsyncConnection, user_id: UUID) -> set[str]:
    """Every destination at which something of the user may be, by its name."""
    return set(await connection.scalars(_DESTINATIONS, {"user_id": user_id}))


_DESTINATIONS_OF_NAME = text("""
    SELECT p.destination FROM users AS p
    WHERE p.app_user_id = :name AND p.erasing_upstream_since IS NOT NULL
    UNION SELECT d.destination FROM users AS p JOIN upstream_deletions AS d ON d.user_id = p.id
        WHERE p.app_user_id = :name
""")


async def destinations_of_name(connection: AsyncConnection, app_user_id: str) -> set[str]:
    """The destinations at which something of that user is deleted, by their names."""
    return set(await connection.scalars(_DESTINATIONS_OF_NAME, {"name": app_user_id}))


_IN_DOUBT = text("""
    SELECT id FROM uploads
    WHERE user_id = :user_id AND destination = ANY(CAST(:destinations AS text[])) AND maybe_sent
        AND NOT cancel_requested AND state IN ('queued', 'parked', 'sending')
    ORDER BY id LIMIT :limit
""")

# A worker's response arrives with its attempt; what a silent one sent, by the attempt's end.
_UNSETTLED = text("""
    SELECT count(*) FILTER (WHERE state = 'sending' OR (
            maybe_sent AND cancel_requested AND state IN ('queued', 'parked')
            AND destination = ANY(CAST(:destinations AS text[])))) AS under_way,
        coalesce(bool_or(attempts > 0 AND CASE
            -- PostgreSQL's clock ran ahead: nobody knows when it was.
            WHEN updated_at > now() THEN :watched < :settle + :attempt
            ELSE updated_at > now() - make_interval(secs => :settle
                + CASE WHEN maybe_sent AND state <> 'delivered' THEN :attempt ELSE 0 END)
            END), false) AS lately
    FROM uploads WHERE user_id = :user_id
""")


async def is_settled(
    connection: AsyncConnection,
    user_id: UUID,
    *,
    look_up_at: Collection[str],
    settle_seconds: float,
    attempt_seconds: float,
    watched_seconds: float,
    limit: int,
) -> bool:
    """Whether nothing of the user is sent or looked up any more, and what was sent has arrived.

    At the destinations `look_up_at`, only a look-up tells the id of what may be there: workers do
    it for what is cancelled. For `watched_seconds` the caller has known that nothing new is sent.
    """
    names = list(look_up_at)
    parameters = {"user_id": user_id, "destinations": names}
    asked = (await connection.scalars(_IN_DOUBT, {**parameters, "limit": limit})).all()
    if asked:
        await cancelling.cancel(connection, asked, by=SYSTEM)
    row = (
        await connection.execute(
            _UNSETTLED,
            {
                **parameters,
                "settle": settle_seconds,
                "attempt": attempt_seconds,
                "watched": watched_seconds,
            },
        )
    ).one()
    return len(asked) < limit and not row.under_way and not row.lately


_PROGRESS = text("""
    SELECT p.erasing_upstream_since AS since, p.lost_upstream AS lost,
        (SELECT count(*) FROM uploads WHERE user_id = p.id AND state = 'sending') AS sending,
        (SELECT count(*) FROM records WHERE user_id = p.id)
            + (SELECT count(*) FROM upstream_deletions WHERE user_id = p.id) AS left_there,
        (SELECT last_response FROM upstream_deletions
            WHERE user_id = p.id AND last_response IS NOT NULL
            ORDER BY tries DESC LIMIT 1) AS problem
    FROM users AS p
    WHERE p.app_user_id = :name AND p.erased_at IS NULL AND p.erasing_upstream_since IS NOT NULL
""")


async def progress(connection: AsyncConnection, app_user_id: str) -> Progress | None:
    """How far the erasing of that user upstream is; None if they are not erased so."""
    row = (await connection.execute(_PROGRESS, {"name": app_user_id})).one_or_none()
    if row is None:
        return None
    return Progress(row.since, row.sending, row.left_there, row.lost, row.problem)


_LEFT = text("""
    SELECT p.lost_upstream FROM users AS p
    WHERE p.app_user_id = :name AND p.erased_at IS NOT NULL AND p.erasing_upstream_since IS NOT NULL
    ORDER BY p.erased_at DESC LIMIT 1
""")


async def left_by_ended(connection: AsyncConnection, app_user_id: str) -> int | None:
    """How much may be left upstream of that user, whose erasing there has ended, and here has not;
    None if there is none."""
    left: int | None = await connection.scalar(_LEFT, {"name": app_user_id})
    return left


_HAS_ENDED = text("""
    SELECT NOT EXISTS (SELECT FROM uploads WHERE user_id = p.id)
            AND NOT EXISTS (SELECT FROM records WHERE user_id = p.id)
            AND NOT EXISTS (SELECT FROM tombstones WHERE user_id = p.id)
            AND NOT EXISTS (SELECT FROM upstream_deletions WHERE user_id = p.id) AS all_gone,
        :days > 0 AND p.erasing_upstream_since < now() - make_interval(secs => 86400 * :days)
            AS too_long
    FROM users AS p WHERE p.id = :user_id
""")


async def has_ended(connection: AsyncConnection, user_id: UUID, *, days: float) -> bool:
    """Whether nothing of the user is left to be deleted, or so many days have passed."""
    row = (await connection.execute(_HAS_ENDED, {"user_id": user_id, "days": days})).one_or_none()
    return row is not None and (row.all_gone or row.too_long)
