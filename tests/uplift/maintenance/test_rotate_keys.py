"""Rotation on a real ledger: while others write, stopped half-way, two at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from tests import factories
from uplift.key_check import key_use
from uplift.ledger import user_keys, users
from uplift.ledger.database import Database
from uplift.ledger.tables import User
from uplift.ledger.user_keys import KeyRow, NewKey
from uplift.ledger.users import UserRow, key_context
from uplift.maintenance.rotate_keys import Rotator
from uplift.queues import UPLOADS
from uplift.sealing import KeyRing, WrappedKey
from uplift.settings import Settings
from uplift.wiring import open_relay

pytestmark = pytest.mark.usefixtures("no_users_left")

OLD, NEW = KeyRing.new_entry("old"), KeyRing.new_entry("new")
BEFORE = KeyRing.parse(f"{OLD},{NEW}")  # the new key is deployed, after the one in use
PROMOTED = KeyRing.parse(f"{NEW},{OLD}")
RETIRED = KeyRing.parse(NEW)


async def add_users(database: Database, key_ring: KeyRing, *names: str) -> dict[str, UserRow]:
    async with database.transaction() as connection:
        return {name: await users.add_user(connection, name, key_ring) for name in names}


def many(count: int, prefix: str = "user") -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


async def counts(database: Database) -> dict[str, int]:
    async with database.transaction() as connection:
        return await user_keys.count_by_master_key(connection)


async def identity_keys(database: Database, key_ring: KeyRing) -> dict[UUID, bytes]:
    """The data key of every living user, unwrapped with this key ring."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            select(User.id, User.master_key_id, User.wrapped_key).where(User.erased_at.is_(None))
        )
        return {
            row.id: key_ring.unwrap(
                WrappedKey(row.master_key_id, row.wrapped_key), key_context(row.id)
            ).identity_key
            for row in rows
        }


async def erase(database: Database, user_id: UUID) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            update(User)
            .where(User.id == user_id)
            .values(wrapped_key=None, app_user_id=None, pseudonym=None, erased_at=text("now()"))
        )


@asynccontextmanager
async def locked(database: Database, user_ids: list[UUID]) -> AsyncIterator[None]:
    """Within, another transaction locks these users."""
    async with database.transaction() as connection:
        await connection.execute(select(User.id).where(User.id.in_(user_ids)).with_for_update())
        yield


async def test_every_living_user_moves_and_keeps_their_data_key(database: Database) -> None:
    added = await add_users(database, BEFORE, *many(250))
    erased = added["user-7"].id
    await erase(database, erased)
    before = await identity_keys(database, BEFORE)
    seen: list[tuple[int, int]] = []

    rotated = await Rotator(database, PROMOTED).rotate(lambda done, all_: seen.append((done, all_)))

    assert (rotated.rewrapped, rotated.left, rotated.unopened) == (249, {}, frozenset())
    assert rotated.complete
    assert await counts(database) == {"new": 249}
    assert await identity_keys(database, RETIRED) == before
    assert erased not in before
    assert seen[0] == (0, 249)
    assert seen[-1] == (249, 249)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


async def test_a_second_rotation_has_nothing_to_do(database: Database) -> None:
    await add_users(database, BEFORE, "alice")
    await Rotator(database, PROMOTED).rotate()

    again = await Rotator(database, PROMOTED).rotate()

    assert (again.rewrapped, again.complete) == (0, True)


async def test_what_was_sealed_before_still_opens_and_its_bytes_are_the_same(
    database: Database, settings: Settings
) -> None:
    def with_key_ring(keys: str) -> Settings:
        return Settings.model_validate({**settings.model_dump(), "master_keys": keys})

    async with open_relay(with_key_ring(f"{OLD},{NEW}")) as relay:
        await factories.user(relay)
        upload = await factories.accepted(relay)
    sealed = text(
        "SELECT u.sealed_body, g.sealed_tokens FROM uploads u JOIN grants g USING (user_id)"
    )
    async with database.transaction() as connection:
        before = (await connection.execute(sealed)).one()

    await Rotator(database, PROMOTED).rotate()

    async with database.transaction() as connection:
        assert (await connection.execute(sealed)).one() == before
    async with open_relay(with_key_ring(NEW)) as relay:
        await relay.deliverer.deliver(UPLOADS)
        assert (await factories.status(relay, upload)).state == "delivered"


async def test_a_rotation_that_was_stopped_goes_on_where_it_was(database: Database) -> None:
    await add_users(database, BEFORE, *many(250))
    before = await identity_keys(database, BEFORE)

    class Stopped(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done:
            raise Stopped

    with pytest.raises(Stopped):
        await Rotator(database, PROMOTED).rotate(stop)
    assert await counts(database) == {"new": 100, "old": 150}
    assert await identity_keys(database, PROMOTED) == before

    rotated = await Rotator(database, PROMOTED).rotate()

    assert (rotated.rewrapped, rotated.left) == (150, {})
    assert await identity_keys(database, RETIRED) == before


async def test_two_rotations_at_once_share_the_work(database: Database) -> None:
    await add_users(database, BEFORE, *many(400))
    before = await identity_keys(database, BEFORE)

    both = await asyncio.gather(*(Rotator(database, PROMOTED).rotate() for _ in range(2)))

    assert sum(rotated.rewrapped for rotated in both) == 400
    assert all(rotated.complete for rotated in both)
    assert await identity_keys(database, RETIRED) == before


async def test_users_come_and_go_and_are_renamed_upstream_while_it_runs(
    database: Database,
) -> None:
    added = await add_users(database, BEFORE, *many(600))
    names = list(added)
    before = await identity_keys(database, BEFORE)
    rotating = asyncio.Event()
    over = asyncio.Event()

    def told(done: int, _: int) -> None:
        if done:
            rotating.set()

    async def come(key_ring: KeyRing, prefix: str) -> dict[str, UserRow]:
        """New users from a process with that key ring: not all processes restart at once."""
        await rotating.wait()
        made: dict[str, UserRow] = {}
        for name in many(60, prefix):
            made |= await add_users(database, key_ring, name)
        return made

    async def go() -> None:
        await rotating.wait()
        for name in names[10::20]:
            await erase(database, added[name].id)

    async def change() -> int:
        changed = 0
        await rotating.wait()
        while not over.is_set():
            async with database.transaction() as connection:
                user_id = added[names[(changed * 7 + 1) % 600]].id
                await users.set_oneup_user(connection, user_id, f"oneup-{changed}")
            changed += 1
        return changed

    async def rotate() -> None:
        assert (await Rotator(database, PROMOTED).rotate(told)).rewrapped
        over.set()

    _, early, late, _, changed = await asyncio.gather(
        rotate(), come(PROMOTED, "early"), come(BEFORE, "late"), go(), change()
    )
    assert changed
    # Users whom a process with the old key ring added after the rotation had passed.
    await Rotator(database, PROMOTED).rotate()

    gone = {added[name].id for name in names[10::20]}
    expected = {id_: key for id_, key in before.items() if id_ not in gone}
    expected |= {user.id: user.key(PROMOTED).identity_key for user in early.values()}
    expected |= {user.id: user.key(PROMOTED).identity_key for user in late.values()}
    assert await identity_keys(database, RETIRED) == expected
    assert await counts(database) == {"new": 600 - 30 + 120}


async def test_a_rotation_and_an_upload_of_the_user_do_not_wait_for_each_other(
    database: Database, settings: Settings
) -> None:
    """An upload locks its user's row, so that erasing waits for it."""
    key_ring = f"{OLD},{NEW}"
    async with open_relay(
        Settings.model_validate({**settings.model_dump(), "master_keys": key_ring})
    ) as relay:
        await factories.user_without_grant(relay)
        async with database.transaction() as connection:
            await users.find_user(connection, "alice", lock=True)
            rotated = await Rotator(database, PROMOTED).rotate()
        assert rotated.complete


async def test_locked_users_are_skipped_and_moved_by_the_next_rotation(
    database: Database,
) -> None:
    added = await add_users(database, BEFORE, *many(30))
    users_locked = [added[name].id for name in many(10)]

    async with locked(database, users_locked):
        async with asyncio.timeout(20):
            first = await Rotator(database, PROMOTED, pause_seconds=0.0).rotate()
    second = await Rotator(database, PROMOTED).rotate()

    assert (first.rewrapped, first.left, first.complete) == (20, {"old": 10}, False)
    assert (second.rewrapped, second.left) == (10, {})


async def test_a_key_that_changed_since_it_was_read_is_not_overwritten(database: Database) -> None:
    alice = (await add_users(database, BEFORE, "alice"))["alice"]
    read = KeyRow(alice.id, alice.wrapped_key)
    elsewhere = PROMOTED.wrap(alice.key(BEFORE), key_context(alice.id))
    ours = PROMOTED.wrap(alice.key(BEFORE), key_context(alice.id))
    async with database.transaction() as connection:
        assert await user_keys.replace_keys(connection, [NewKey(read, elsewhere)]) == {alice.id}

    async with database.transaction() as connection:
        assert await user_keys.replace_keys(connection, [NewKey(read, ours)]) == set()
        found = await users.find_user(connection, "alice")

    assert found is not None
    assert found.wrapped_key == elsewhere


async def test_an_erased_user_does_not_get_a_key_back(database: Database) -> None:
    alice = (await add_users(database, BEFORE, "alice"))["alice"]
    again = PROMOTED.wrap(alice.key(BEFORE), key_context(alice.id))
    await erase(database, alice.id)

    async with database.transaction() as connection:
        new = NewKey(KeyRow(alice.id, alice.wrapped_key), again)
        assert await user_keys.replace_keys(connection, [new]) == set()
        row = (await connection.execute(select(User.wrapped_key))).one()

    assert row.wrapped_key is None


async def test_a_key_that_does_not_open_is_left_as_it_is_and_named(database: Database) -> None:
    added = await add_users(database, BEFORE, *many(5))
    broken = added["user-2"]
    sealed = bytearray(broken.wrapped_key.sealed)
    sealed[-1] ^= 1
    async with database.transaction() as connection:
        await connection.execute(
            update(User).where(User.id == broken.id).values(wrapped_key=bytes(sealed))
        )

    rotated = await Rotator(database, PROMOTED).rotate()

    assert (rotated.rewrapped, rotated.left) == (4, {"old": 1})
    assert rotated.unopened == {broken.id}
    async with database.transaction() as connection:
        assert (await user_keys.samples_of(connection, "old"))[0].wrapped == WrappedKey(
            "old", bytes(sealed)
        )
        use = await key_use(connection, PROMOTED)
    assert use.different == {"old"}
