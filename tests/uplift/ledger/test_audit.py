"""The audit trail: what is noted is true, belongs to its act, and stays."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from uuid_utils.compat import uuid4

from tests.keys import KEY_RING
from tests.uplift.ledger import rows
from uplift.ledger import audit, credentials, erasing
from uplift.ledger.audit import SYSTEM, Action, Actor, Event
from uplift.ledger.database import Database
from uplift.ledger.tables import AuditEvent, User
from uplift.ledger.users import UserRow
from uplift.sealing import KeyRing

_WHO = Actor("key:somebody")


async def events(database: Database) -> list[Event]:
    async with database.transaction() as connection:
        return await audit.list_events(connection)


async def pseudonym(database: Database, user: UserRow) -> object:
    async with database.transaction() as connection:
        return await connection.scalar(select(User.pseudonym).where(User.id == user.id))


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE audit_events SET actor = 'nobody'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "UPDATE audit_events SET actor = 'nobody' WHERE false",
        """
        INSERT INTO audit_events (id, actor, action) OVERRIDING SYSTEM VALUE
        SELECT id, 'nobody', action FROM audit_events
        ON CONFLICT (id) DO UPDATE SET actor = 'nobody'
        """,
    ],
)
async def test_nobody_changes_or_removes_an_event(
    database: Database, alice: UserRow, attack: str
) -> None:
    before = await events(database)
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.transaction() as connection:
            await connection.execute(text(attack))
    assert await events(database) == before
    assert before


async def test_an_event_says_who_did_what_about_whom_and_when(
    database: Database, alice: UserRow
) -> None:
    credential_id = uuid4()
    async with database.transaction() as connection:
        now = await connection.scalar(select(func.now()))
        await audit.note(
            connection,
            _WHO,
            Action.DEVICE_TOKEN_MADE,
            user_id=alice.id,
            credential_id=credential_id,
        )
    event = (await events(database))[-1]
    assert (event.actor, event.action, event.at) == (_WHO, "device_token_made", now)
    assert event.pseudonym == await pseudonym(database, alice) != None  # noqa: E711
    assert (event.credential_id, event.upload_id) == (credential_id, None)
    assert str(alice.id) not in str(event)


async def test_an_act_that_did_not_happen_is_not_in_the_trail(
    database: Database, key_ring: KeyRing
) -> None:
    before = await events(database)
    async with database.transaction() as connection:
        await credentials.add_api_key(connection, KEY_RING, "backend", frozenset(), by=_WHO)
        await connection.rollback()
    assert await events(database) == before


async def test_an_act_on_many_uploads_is_one_event_each_in_their_order(
    database: Database, key_ring: KeyRing, alice: UserRow
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    uploads = [await rows.put(database, user) for user in (alice, bob, alice)]
    before = len(await events(database))
    async with database.transaction() as connection:
        await audit.note_uploads(connection, _WHO, Action.UPLOAD_REDRIVEN, uploads[::-1])
        await audit.note_uploads(connection, _WHO, Action.UPLOAD_REDRIVEN, [])
    noted = (await events(database))[before:]
    assert [event.upload_id for event in noted] == uploads
    about_alice, about_bob = await pseudonym(database, alice), await pseudonym(database, bob)
    assert [event.pseudonym for event in noted] == [about_alice, about_bob, about_alice]
    assert {(event.actor, event.action) for event in noted} == {(_WHO, "upload_redriven")}


async def test_making_the_same_user_again_is_no_second_event(
    database: Database, key_ring: KeyRing
) -> None:
    for _ in range(3):
        await rows.add_user(database, key_ring, "carol")
    assert [(event.actor, event.action) for event in await events(database)] == [
        (SYSTEM, "user_added")
    ]


async def test_keys_and_tokens_are_noted_when_made_and_when_revoked_once(
    database: Database, alice: UserRow
) -> None:
    async with database.transaction() as connection:
        key_id, _ = await credentials.add_api_key(
            connection, KEY_RING, "backend", frozenset(), by=_WHO
        )
        token = await credentials.add_device_token(connection, KEY_RING, alice.id, 60, by=_WHO)
        for _ in range(2):
            await credentials.revoke(connection, key_id, by=_WHO)
            await credentials.revoke_device_tokens(connection, alice.id, by=_WHO)
    about_alice = await pseudonym(database, alice)
    assert [
        (event.action, event.credential_id, event.pseudonym)
        for event in await events(database)
        if event.actor == _WHO
    ] == [
        ("api_key_made", key_id, None),
        ("device_token_made", token.id, about_alice),
        ("api_key_revoked", key_id, None),
        ("device_token_revoked", token.id, about_alice),
    ]


async def test_after_erasing_the_trail_stays_and_leads_to_nobody(
    database: Database, alice: UserRow
) -> None:
    about_alice = await pseudonym(database, alice)
    before = await events(database)
    async with database.transaction() as connection:
        assert await erasing.begin(connection, "alice", _WHO)
    after = await events(database)
    assert after[:-1] == before
    assert (after[-1].action, after[-1].actor) == ("user_erased", _WHO)
    assert after[-1].pseudonym == about_alice
    async with database.transaction() as connection:
        assert await connection.scalar(select(User.pseudonym)) is None
        assert await audit.list_events(connection, user_id=alice.id) == []


async def test_events_are_listed_by_user_by_time_and_in_pages(
    database: Database, key_ring: KeyRing, alice: UserRow
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    for user in (alice, bob, alice):
        async with database.transaction() as connection:
            await audit.note(connection, _WHO, Action.READ_BACK, user_id=user.id)
    everything = await events(database)
    about_alice = [event for event in everything if event.pseudonym == everything[0].pseudonym]
    assert len(about_alice) == 3
    async with database.transaction() as connection:
        assert await audit.list_events(connection, user_id=alice.id) == about_alice
        first = await audit.list_events(connection, user_id=alice.id, limit=2)
        assert first == about_alice[:2]
        rest = await audit.list_events(connection, user_id=alice.id, after=first[-1].id)
        assert rest == about_alice[2:]
        since = everything[3].at
        assert await audit.list_events(connection, since=since) == everything[3:]
        later = everything[-1].at + timedelta(microseconds=1)
        assert await audit.list_events(connection, since=later) == []


async def test_every_action_fits_the_trail(database: Database) -> None:
    for action in Action:
        async with database.transaction() as connection:
            await audit.note(connection, SYSTEM, action)
    async with database.transaction() as connection:
        kept = await connection.scalars(select(AuditEvent.action).order_by(AuditEvent.id))
        assert kept.all() == list(Action)
