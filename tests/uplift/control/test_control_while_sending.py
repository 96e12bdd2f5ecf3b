"""Redrive, cancel and pause with workers that really send, to a simulated 1upHealth."""

import asyncio
import time
from uuid import UUID

import orjson
import pytest
import redis.asyncio
from sqlalchemy import text

from tests import factories
from tests.uplift.delivery.delivering import deliver, writes
from tests.uplift.ledger import rows
from tests.uplift.test_dispatch import all_ids
from uplift.control.redrive import Redriver
from uplift.dispatch import Dispatcher
from uplift.errors import Conflict, NotFound
from uplift.ledger.audit import SYSTEM, Action, list_events
from uplift.ledger.database import Database
from uplift.ledger.dead_letters import Left
from uplift.ledger.filters import Filter
from uplift.lifecycle import Reason, State
from uplift.queues import BULK, UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.wiring import Relay

_CREATE = {"api": "fhir", "method": "POST"}


async def test_what_was_refused_is_sent_once_it_is_redriven(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "status", "status": 422, "match": _CREATE, "count": 1})
    assert (await deliver(relay, accepted)).state is State.REFUSED
    assert await relay.redriver.redrive(accepted.upload.id) is State.QUEUED
    assert await relay.redriver.redrive(accepted.upload.id) is None
    assert (await deliver(relay, accepted)).state is State.DELIVERED
    assert upstream.stored_bytes() == [orjson.dumps(factories.resource())]
    with pytest.raises(Conflict, match="It is delivered"):
        await relay.redriver.redrive(accepted.upload.id)


async def test_what_was_rejected_is_validated_again(relay: Relay, upstream: SandboxServer) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    stale = {"total": 1, "issue": []}
    await rows.bring_to(relay.database, accepted.upload.id, State.REJECTED, issues=stale)
    await relay.redriver.redrive(accepted.upload.id)
    row = await deliver(relay, accepted)
    assert (row.state, row.issues) == (State.DELIVERED, {"total": 0, "issue": []})
    broken = await factories.accepted(relay, id="obs-2", status=7)
    assert (await deliver(relay, broken)).state is State.REJECTED
    await relay.redriver.redrive(broken.upload.id)
    row = await deliver(relay, broken)
    assert (row.state, row.attempts) == (State.REJECTED, 1)
    assert len(writes(upstream)) == 1


async def test_what_may_be_there_is_looked_for_before_it_is_sent_again(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "cut", "commit": True, "match": _CREATE, "count": 1})
    await deliver(relay, accepted)
    await rows.bring_to(relay.database, accepted.upload.id, State.EXPIRED)
    await relay.redriver.redrive(accepted.upload.id)
    assert (await deliver(relay, accepted)).state is State.DELIVERED
    assert len(writes(upstream)) == 1


async def test_an_old_version_is_never_sent_after_a_newer_one(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    old = await factories.accepted(relay, valueQuantity={"value": 1})
    await rows.bring_to(relay.database, old.upload.id, State.EXPIRED)
    newer = await factories.accepted(relay, valueQuantity={"value": 2})
    assert (await deliver(relay, newer)).state is State.DELIVERED
    assert await relay.redriver.redrive(old.upload.id) is State.SUPERSEDED
    assert (await deliver(relay, old)).state is State.SUPERSEDED
    assert len(writes(upstream)) == 1


async def test_each_refusal_to_redrive_says_why(relay: Relay) -> None:
    await factories.user_without_grant(relay)
    accepted = await factories.accepted(relay)
    id_ = accepted.upload.id
    for state, why in [
        (State.CANCELLED, "It was cancelled"),
        (State.SUPERSEDED, "A newer version"),
        (State.EXPIRED, "Its body is not kept"),
    ]:
        await rows.bring_to(relay.database, id_, state, sealed_body=None)
        with pytest.raises(Conflict, match=why):
            await relay.redriver.redrive(id_)
    with pytest.raises(NotFound):
        await relay.redriver.redrive(factories.new_id())
    with pytest.raises(NotFound):
        await relay.canceller.cancel(factories.new_id())
    with pytest.raises(NotFound):
        await relay.pauser.pause("nobody")
    with pytest.raises(NotFound):
        await relay.pauser.resume("nobody")


def _wait_for_a_write(upstream: SandboxServer) -> None:
    while not writes(upstream):
        time.sleep(0.01)


async def test_what_is_cancelled_while_it_arrives_is_delivered(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "slow", "seconds": 0.3, "match": _CREATE, "count": 1})
    sending = asyncio.create_task(relay.deliverer.deliver(UPLOADS))
    await asyncio.to_thread(_wait_for_a_write, upstream)
    assert not await relay.canceller.cancel(accepted.upload.id)
    await sending
    assert (await factories.status(relay, accepted)).state is State.DELIVERED
    with pytest.raises(Conflict, match="ended already"):
        await relay.canceller.cancel(accepted.upload.id)


@pytest.mark.parametrize("commit", [True, False])
async def test_what_is_cancelled_while_nobody_knows_is_looked_for_and_not_sent_again(
    relay: Relay, upstream: SandboxServer, commit: bool
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "cut", "commit": commit, "match": _CREATE, "count": 1})
    assert (await deliver(relay, accepted)).reason == Reason.SETTLING
    assert not await relay.canceller.cancel(accepted.upload.id)
    assert not await relay.canceller.cancel(accepted.upload.id)
    row = await deliver(relay, accepted)
    assert row.state is (State.DELIVERED if commit else State.CANCELLED)
    assert row.cancel_requested
    assert len(writes(upstream)) == 1
    async with relay.database.transaction() as connection:
        events = await list_events(connection)
    assert [event.action for event in events].count(Action.UPLOAD_CANCELLED) == 1


async def test_while_paused_workers_send_nothing_and_go_on_when_it_is_over(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    since = (await relay.pauser.pause("alice")).since
    assert (await relay.pauser.pause("alice")).since == since
    row = await deliver(relay, accepted)
    assert (row.state, row.reason, row.attempts) == (State.QUEUED, Reason.NEW, 0)
    assert await relay.pauser.resume("alice")
    assert not await relay.pauser.resume("alice")
    await relay.pauser.pause(None)
    assert (await relay.sweeper.sweep()).dispatched == 0
    assert (await deliver(relay, accepted)).state is State.QUEUED
    assert writes(upstream) == []
    await relay.pauser.resume(None)
    assert (await deliver(relay, accepted)).state is State.DELIVERED


_MANY = 1100


@pytest.fixture
async def many(database: Database, key_ring: KeyRing) -> list[UUID]:
    """So many dead letters of one person, of which every eleventh has no body any more."""
    alice = await rows.add_user(database, key_ring)
    group = [rows.new_upload(alice, queue=(UPLOADS, BULK)[n % 2]) for n in range(_MANY)]
    async with database.transaction() as connection:
        await rows.put_in_unread(connection, group)
        await connection.execute(
            text("UPDATE uploads SET state = 'expired', next_attempt_at = NULL, finish_tag = NULL")
        )
        await connection.execute(
            text("UPDATE uploads SET sealed_body = NULL WHERE id = ANY(:ids)"),
            {"ids": [new.id for new in group[::11]]},
        )
    return [new.id for new in group]


async def test_all_dead_letters_are_redriven_in_groups_and_dispatched_in_their_queues(
    database: Database,
    own_settings: Settings,
    client: "redis.asyncio.Redis",
    dispatcher: Dispatcher,
    many: list[UUID],
) -> None:
    redriver = Redriver(database, own_settings, dispatcher)
    dispatcher.start()
    assert await redriver.count(Filter()) == _MANY
    groups: list[int] = []
    tally = await redriver.redrive_all(Filter(), by=SYSTEM, progress=groups.append)
    assert groups == [500, 500, 100]
    assert (tally.queued, tally.superseded, tally.left) == (1000, 0, {Left.NO_BODY: 100})
    assert tally.after is None
    await dispatcher.close()
    kept = set(many) - set(many[::11])
    assert set(await all_ids(client, UPLOADS)) == kept & set(many[::2])
    assert set(await all_ids(client, BULK)) == kept & set(many[1::2])
    again = await redriver.redrive_all(Filter(), by=SYSTEM)
    assert (again.queued, again.left) == (0, {Left.NO_BODY: 100})


async def test_a_redrive_of_a_part_says_where_to_go_on(
    database: Database, own_settings: Settings, many: list[UUID]
) -> None:
    redriver = Redriver(database, own_settings)
    first = await redriver.redrive_all(Filter(), limit=1)
    assert first.queued + first.left[Left.NO_BODY] == 500
    rest = await redriver.redrive_all(Filter(), after=first.after, limit=10_000)
    assert rest.queued + rest.left[Left.NO_BODY] == _MANY - 500
    assert first.queued + rest.queued == 1000
    assert rest.after is None
