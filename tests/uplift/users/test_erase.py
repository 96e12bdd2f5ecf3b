"""Nothing of an erased user is found, whatever was under way. All other users keep everything."""

import asyncio
import base64
import re
from dataclasses import dataclass, field

import orjson
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid4

from tests import factories
from tests.keys import KEY_RING
from tests.uplift.ledger import rows
from tests.uplift.users import whereabouts
from uplift.errors import Conflict, NotFound
from uplift.intake.accept import Accepted
from uplift.intake.labels import Labels
from uplift.intake.submission import parse
from uplift.ledger import credentials, erasing, leases, retention, users
from uplift.ledger.audit import Actor
from uplift.ledger.database import Database
from uplift.ledger.tables import Batch, Grant, IdempotencyKey, Record, Table, Upload, User
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.users import UserRow
from uplift.lifecycle import State
from uplift.queues import UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay

_NAME = "canary-person"
_NOTE = "canary-note"
_RECORD = "canary-record"
_SOURCE = "canary-hospital"
_CREATE = {"api": "fhir", "method": "POST"}


@dataclass
class Person:
    """A user with a bit of everything in the ledger, and how to find them."""

    user: UserRow
    # What only their key shows.
    sealed: set[bytes]
    # What anybody sees who may look into the tables.
    plain: set[bytes] = field(default_factory=set)
    # What the audit trail keeps: ids that nothing leads from any more.
    audited: set[bytes] = field(default_factory=set)


async def submit(relay: Relay, number: int, **elements: object) -> Accepted:
    labels = Labels(fhir_version="R4", source=_SOURCE, record_id=f"{_RECORD}-{number}")
    body = factories.resource(id=f"{_RECORD}-{number}", note=[{"text": _NOTE}], **elements)
    return await relay.acceptor.accept(_NAME, parse(orjson.dumps(body), labels))


async def a_person_with_everything(relay: Relay, upstream: SandboxServer) -> Person:
    """Uploads delivered, thinned, rejected, refused, queued, parked; tokens, a batch, a device."""
    user = await factories.user(relay, _NAME)
    await deliver(relay, await submit(relay, 1))
    await deliver(relay, await submit(relay, 2, status="no-such-code"))
    upstream.faults({"kind": "status", "status": 422, "match": _CREATE, "count": 1})
    await deliver(relay, await submit(relay, 3))
    await deliver(relay, await submit(relay, 6))
    await thin(relay)
    queued = await submit(relay, 4)
    await submit(relay, 5)
    async with relay.database.transaction() as connection:
        key_id, _ = await credentials.add_api_key(connection, KEY_RING, "backend", frozenset())
        token = await credentials.add_device_token(connection, KEY_RING, user.id, 600)
        for credential_id in (key_id, token.id):
            connection_key = IdempotencyKey(
                credential_id=credential_id,
                key_hash=b"canary-key-hash",
                request_digest=b"canary-digest",
                upload_id=queued.upload.id,
                expires_at=text("now() + interval '1 day'"),
            )
            await _insert(connection, connection_key)
        batch_id = uuid4()
        await _insert(connection, Batch(id=batch_id, user_id=user.id))
        await connection.execute(
            update(Upload).where(Upload.id == queued.upload.id).values(batch_id=batch_id)
        )
        await connection.execute(
            text("INSERT INTO batch_lines (batch_id, line, upload_id) VALUES (:batch, 1, :upload)"),
            {"batch": batch_id, "upload": queued.upload.id},
        )
    access, refresh = await _tokens(relay, user)
    person = Person(user, {_NOTE.encode(), _RECORD.encode(), access.encode(), refresh.encode()})
    async with relay.database.transaction() as connection:
        pseudonym = await connection.scalar(select(User.pseudonym))
        oneup_user_id = await connection.scalar(select(User.oneup_user_id))
        records = (await connection.execute(select(Record.id, Record.identity))).all()
        uploads = (await connection.execute(select(Upload.id, Upload.digest))).all()
    person.plain = {
        _NAME.encode(),
        str(user.id).encode(),
        str(batch_id).encode(),
        b"canary-key-hash",
        b"canary-digest",
        str(oneup_user_id).encode(),
        *(part for row in records for part in (str(row.id).encode(), bytes(row.identity))),
        *(bytes(row.digest) for row in uploads),
    }
    person.audited = {
        str(pseudonym).encode(),
        str(token.id).encode(),
        *(str(row.id).encode() for row in uploads),
    }
    return person


async def thin(relay: Relay) -> None:
    """Thin out the upload that was delivered last, as retention does."""
    windows = retention.Windows(
        delivered=0.0, tombstones=True, withdrawn=None, bodies=None, failed=None, batches=None
    )
    async with relay.database.transaction() as connection:
        delivered = select(Upload.id).where(Upload.state == State.DELIVERED).order_by(Upload.id)
        *_, before, _ = (await connection.scalars(delivered)).all()
        walked = await retention.walk_uploads(connection, windows, after=before, limit=10)
    assert walked.thinned == 1


async def _insert(connection: AsyncConnection, row: Table) -> None:
    values = {
        column.name: getattr(row, column.name)
        for column in row.__table__.columns
        if getattr(row, column.name) is not None
    }
    await connection.execute(row.__table__.insert().values(values))  # type: ignore[attr-defined]


async def _tokens(relay: Relay, user: UserRow) -> tuple[str, str]:
    async with relay.database.transaction() as connection:
        sealed = await connection.scalar(
            select(Grant.sealed_tokens).where(Grant.user_id == user.id)
        )
    opened = orjson.loads(user.key(relay.key_ring).open(sealed or b"", b"grant " + user.id.bytes))
    return opened["access"], opened["refresh"]


async def deliver(relay: Relay, _: Accepted) -> None:
    await relay.deliverer.deliver(UPLOADS)


async def erase(relay: Relay, name: str = _NAME, *, wait: float = 10) -> bool:
    return (await relay.eraser.erase(name, wait=wait)).done


# They change while others work, and belong to no user.
_OF_NOBODY = {"audit_events", "master_keys", "processes"}


async def nothing_is_left(database: Database) -> bool:
    """Whether only what belongs to no user is left: the audit trail, keys, processes, addresses."""
    left = {"audit_events", "credentials", "deployment_keys", "master_keys", "processes"}
    left |= {"destinations"}
    return set(await whereabouts.counts(database)) <= left


async def _dispatched(url: str, ids: set[bytes]) -> bool:
    """Whether a message with one of these ids arrives in Redis."""
    for _ in range(100):
        # Its body is base64.
        decoded = _decoded(await whereabouts.in_redis(url))
        if any(each in decoded for each in ids):
            return True
        await asyncio.sleep(0.05)
    return False


def _decoded(held: bytes) -> bytes:
    return b"".join(
        base64.b64decode(found) for found in re.findall(rb'"body": ?"([A-Za-z0-9+/=]+)"', held)
    )


async def somebody_waits_for_a_lock(database: Database) -> None:
    """Until a transaction waits for another."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with asyncio.timeout(10):
        while True:
            async with database.transaction() as connection:
                if await connection.scalar(waiting):
                    return
            await asyncio.sleep(0.02)


async def in_flight(upstream: SandboxServer, api: str) -> None:
    """Until a request is at the sandbox."""
    for _ in range(200):
        if any(rule["fired"] for rule in upstream.fault_rules()):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"No request came to {api}.")


def test_the_tool_of_these_tests_opens_every_sealed_column() -> None:
    assert whereabouts.openable_columns() == whereabouts.sealed_columns()


async def test_of_an_erased_person_nothing_is_found_with_keys_or_without(
    relay: Relay, upstream: SandboxServer, settings: Settings
) -> None:
    person = await a_person_with_everything(relay, upstream)
    before = await whereabouts.opened(relay.database, relay.key_ring)
    assert [canary for canary in person.sealed if canary not in before] == []
    shown = await whereabouts.shown(relay.database)
    assert [canary for canary in person.plain | person.audited if canary not in shown] == []
    assert [canary for canary in person.sealed if canary in shown] == []
    assert settings.redis_url is not None
    dispatch_redis = settings.redis_url.get_secret_value()
    assert await _dispatched(dispatch_redis, person.audited)

    assert await erase(relay)

    assert await whereabouts.opened(relay.database, relay.key_ring) == b""
    shown = await whereabouts.shown(relay.database)
    assert [canary for canary in person.plain | person.sealed if canary in shown] == []
    shown = await whereabouts.shown(relay.database, but=_OF_NOBODY)
    assert [canary for canary in person.audited if canary in shown] == []
    assert await nothing_is_left(relay.database)
    # Messages of theirs stay in Redis, where nobody takes them here; they hold ids alone.
    in_redis = await whereabouts.in_redis(dispatch_redis)
    in_redis += _decoded(in_redis)
    assert [canary for canary in person.plain | person.sealed if canary in in_redis] == []


async def test_others_keep_everything(relay: Relay, upstream: SandboxServer) -> None:
    await factories.user(relay, "bob")
    await deliver(relay, await factories.accepted(relay, "bob", id="one"))
    waiting = await factories.accepted(relay, "bob", id="two")
    later = text("now() + interval '1 hour'")
    await rows.bring_to(relay.database, waiting.upload.id, State.QUEUED, next_attempt_at=later)
    everything = await whereabouts.shown(relay.database, but=_OF_NOBODY)
    opened = await whereabouts.opened(relay.database, relay.key_ring)
    await factories.user(relay, _NAME)
    await deliver(relay, await submit(relay, 1))
    await submit(relay, 2)
    assert await whereabouts.shown(relay.database, but=_OF_NOBODY) != everything
    assert await erase(relay)
    assert await whereabouts.shown(relay.database, but=_OF_NOBODY) == everything
    assert await whereabouts.opened(relay.database, relay.key_ring) == opened
    assert opened


async def test_an_upload_in_flight_ends_without_leaving_anything(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay, _NAME)
    accepted = await submit(relay, 1)
    upstream.faults({"kind": "slow", "seconds": 1.5, "match": _CREATE})
    sending = asyncio.create_task(deliver(relay, accepted))
    await in_flight(upstream, "fhir")

    erasure = await relay.eraser.erase(_NAME, wait=0)
    assert (erasure.done, erasure.sending) == (False, 1)
    # While it goes on, nothing can be read, opened or added, and only the name is left of the
    # person.
    assert await whereabouts.opened(relay.database, relay.key_ring) == b""
    async with relay.database.transaction() as connection:
        left = (await connection.execute(select(*User.__table__.c))).one()
    assert {name for name, value in left._mapping.items() if value is not None} == {
        "id",
        "app_user_id",
        "destination",
        "moving",
        "sync_token",
        "created_at",
        "erased_at",
        "lost_upstream",
    }
    with pytest.raises(KeyError):
        await factories.status(relay, accepted)
    with pytest.raises(NotFound):
        await submit(relay, 2)
    # Whoever repeats it hears how far it is.
    assert (await relay.eraser.erase(_NAME, wait=0)).sending == 1

    assert not sending.done()
    assert await erase(relay)
    # It ends with the attempt, not with the lease, which is much longer.
    await asyncio.wait_for(sending, 1)
    assert upstream.counts()["total"]["resources"] == 1
    assert await nothing_is_left(relay.database)


async def test_what_a_killed_worker_had_is_erased_once_its_lease_ends(relay: Relay) -> None:
    await factories.user(relay, _NAME)
    accepted = await submit(relay, 1)
    assert await rows.claim(relay.database, accepted.upload.id, lease_seconds=1.0)
    assert not await erase(relay, wait=0)
    row = await rows.row(relay.database, accepted.upload.id)
    assert (row.state, row.sealed_body, row.digest) == (State.SENDING, b"", b"")
    assert await erase(relay, wait=5)
    assert await nothing_is_left(relay.database)


async def test_an_earlier_attempt_that_was_lost_does_not_delay_it(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay, _NAME)
    accepted = await submit(relay, 1)
    await rows.claim(relay.database, accepted.upload.id, lease_seconds=0.01)
    await asyncio.sleep(0.05)
    await relay.sweeper.sweep()
    async with relay.database.transaction() as connection:
        await connection.execute(text("UPDATE uploads SET next_attempt_at = now()"))
    await relay.sweeper.sweep()
    upstream.faults({"kind": "slow", "seconds": 1, "match": {"api": "fhir"}})
    sending = asyncio.create_task(deliver(relay, accepted))
    await in_flight(upstream, "fhir")
    assert not await erase(relay, wait=0)
    await sending
    assert await erase(relay, wait=0)


async def test_a_claim_that_was_on_its_way_does_not_escape(relay: Relay) -> None:
    await factories.user(relay, _NAME)
    accepted = await submit(relay, 1)
    async with relay.database.transaction() as connection:
        claims = await leases.claim(
            connection, [accepted.upload.id], **rows.terms(lease_seconds=1.0, give_up_seconds=60)
        )
        assert claims
        # Not committed yet: the erasing neither waits for it nor passes it over.
        assert not await erase(relay, wait=0)
    assert not await erase(relay, wait=0)
    assert await erase(relay, wait=5)
    assert await nothing_is_left(relay.database)


async def test_the_sweep_finishes_what_a_killed_process_began(
    relay: Relay, upstream: SandboxServer
) -> None:
    await a_person_with_everything(relay, upstream)
    async with relay.database.transaction() as connection:
        assert await erasing.begin(connection, _NAME, Actor("key:1"))
    async with relay.database.transaction() as connection:
        assert len(await erasing.some_begun(connection, limit=10)) == 1
    assert (await relay.sweeper.sweep()).erased == 1
    assert await nothing_is_left(relay.database)
    assert (await relay.sweeper.sweep()).erased == 0


async def test_it_continues_from_any_row_at_which_it_was_interrupted(relay: Relay) -> None:
    user = await factories.user_without_grant(relay, _NAME)
    await rows.add_history(relay.database, user, 20)
    async with relay.database.transaction() as connection:
        await erasing.begin(connection, _NAME, Actor("key:1"))
    steps = 0
    while True:
        async with relay.database.transaction() as connection:
            if (await erasing.remove_some(connection, user.id, limit=7)).done:
                break
        steps += 1
    # Uploads, then records, about 7 at a time: PostgreSQL may look for them twice in a statement.
    assert 2 < steps <= 6
    assert await nothing_is_left(relay.database)


async def test_a_long_history_goes_in_transactions_of_bounded_size(relay: Relay) -> None:
    user = await factories.user_without_grant(relay, _NAME)
    await rows.add_history(relay.database, user, 2500)
    assert await erase(relay)
    assert await nothing_is_left(relay.database)


async def test_erasing_twice_at_once_is_erasing_once(relay: Relay, upstream: SandboxServer) -> None:
    await a_person_with_everything(relay, upstream)
    ends = await asyncio.gather(
        *(erase(relay) for _ in range(4)), relay.sweeper.sweep(), return_exceptions=True
    )
    assert all(end is True or isinstance(end, NotFound) for end in ends[:4])
    assert await nothing_is_left(relay.database)
    async with relay.database.transaction() as connection:
        events = await connection.scalars(
            text("SELECT id FROM audit_events WHERE action = 'user_erased'")
        )
        assert len(events.all()) == 1


async def test_a_name_that_nobody_has_is_not_found(relay: Relay) -> None:
    await factories.user_without_grant(relay, _NAME)
    for name in ("somebody-else", _NAME.upper()):
        with pytest.raises(NotFound):
            await erase(relay, name)
    assert await erase(relay)
    with pytest.raises(NotFound):
        await erase(relay)


async def test_the_same_person_may_come_back_at_once_as_a_new_user(
    relay: Relay, upstream: SandboxServer
) -> None:
    before = await factories.user(relay, _NAME)
    old = await submit(relay, 1)
    await rows.claim(relay.database, old.upload.id)
    assert not await erase(relay, wait=0)

    after = await factories.user(relay, _NAME)
    assert after.id != before.id
    new = await submit(relay, 1)
    assert not new.duplicate
    await deliver(relay, new)
    assert (await factories.status(relay, new)).state is State.DELIVERED
    # The one who came back is erased with the one who is not gone yet.
    assert not await erase(relay, wait=0)
    async with relay.database.transaction() as connection:
        assert await users.find_user(connection, _NAME) is None
        assert list(await connection.scalars(select(Upload.id))) == [old.upload.id]


async def test_uploads_that_arrive_meanwhile_are_refused_or_erased(relay: Relay) -> None:
    await factories.user_without_grant(relay, _NAME)
    taken: list[Accepted] = []
    numbers = iter(range(10_000))
    poured = asyncio.Event()

    async def pour() -> None:
        while True:
            try:
                taken.append(await submit(relay, next(numbers)))
            except NotFound:
                return
            if len(taken) == 20:
                poured.set()

    pouring = [asyncio.create_task(pour()) for _ in range(6)]
    await asyncio.wait_for(poured.wait(), 30)
    # It does not wait for a moment without any upload, which may never come.
    assert await erase(relay)
    await asyncio.gather(*pouring)
    assert await nothing_is_left(relay.database)


async def test_an_upload_that_is_just_being_accepted_is_not_missed(relay: Relay) -> None:
    await factories.user_without_grant(relay, _NAME)
    async with relay.database.transaction() as connection:
        # Whoever inserts a record waits.
        await connection.execute(text("LOCK TABLE records IN SHARE MODE"))
        accepting = asyncio.create_task(submit(relay, 1))
        await somebody_waits_for_a_lock(relay.database)
        assert not await asyncio.wait_for(erase(relay, wait=0), 5)
    with pytest.raises(NotFound):
        await accepting
    assert await erase(relay) is True
    assert await nothing_is_left(relay.database)


async def test_a_refresh_under_way_keeps_no_tokens(relay: Relay, upstream: SandboxServer) -> None:
    await factories.user(relay, _NAME)
    accepted = await submit(relay, 1)
    async with relay.database.transaction() as connection:
        await connection.execute(update(Grant).values(expires_at=text("now()")))
    upstream.faults({"kind": "slow", "seconds": 1, "match": {"api": "token"}})
    sending = asyncio.create_task(deliver(relay, accepted))
    await in_flight(upstream, "token")
    assert await erase(relay)
    await sending
    assert await nothing_is_left(relay.database)
    assert upstream.counts()["total"]["resources"] == 0


async def test_a_user_who_is_erased_while_being_created_is_not_created(
    relay: Relay, upstream: SandboxServer
) -> None:
    upstream.faults({"kind": "slow", "seconds": 1, "match": {"api": "user-management"}})
    making = asyncio.create_task(relay.provisioner.provision(_NAME))
    await in_flight(upstream, "user-management")
    assert await erase(relay)
    with pytest.raises(Conflict):
        await making
    assert await nothing_is_left(relay.database)
    upstream.clear_faults()
    await relay.provisioner.provision(_NAME)


async def test_a_grant_brought_meanwhile_is_a_new_users(relay: Relay) -> None:
    await factories.user_without_grant(relay, _NAME)
    accepted = await submit(relay, 1)
    await rows.claim(relay.database, accepted.upload.id)
    assert not await erase(relay, wait=0)
    user = await relay.provisioner.bring_grant(_NAME, TokenPair("access", "refresh", 60.0))
    async with relay.database.transaction() as connection:
        assert list(await connection.scalars(select(Grant.user_id))) == [user.id]
        assert user.id != accepted.upload.user_id


async def test_a_long_poll_for_an_erased_upload_ends_at_once(relay: Relay) -> None:
    await factories.user_without_grant(relay, _NAME)
    accepted = await submit(relay, 1)
    waiting = asyncio.create_task(
        relay.long_poll.wait(accepted.upload, lambda row: not row.state.in_progress, 30)
    )
    await asyncio.sleep(0)  # it waits now
    assert await erase(relay)
    with pytest.raises(NotFound):
        await asyncio.wait_for(waiting, 5)
