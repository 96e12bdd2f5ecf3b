"""One hospital under two labels is one record; two hospitals with one id are two."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row, text

from tests.uplift.ledger import rows
from uplift.ledger import dead_letters, leases
from uplift.ledger.audit import SYSTEM
from uplift.ledger.database import Database
from uplift.ledger.leases import Outcome
from uplift.ledger.new_uploads import NewUpload
from uplift.ledger.transitions import Change
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State

PLACE = b"place".ljust(32, b"\0")
OTHER_PLACE = b"other place".ljust(32, b"\0")

Put = Callable[..., Awaitable[tuple[UUID, bool]]]


def labelled(
    user: UserRow,
    content: str,
    source: str | None = None,
    server: str | None = None,
    *,
    place: bytes = PLACE,
    record: str = "1",
) -> NewUpload:
    return rows.new_upload(
        user,
        identity=f"{source or server} {record} {place.hex()}".encode(),
        digest=content.encode(),
        upstream_key=place,
        source_key=(source or server or "").encode() or None,
        server_key=server.encode() if server else None,
    )


async def put_in(database: Database, group: list[NewUpload]) -> list[tuple[UUID, bool]]:
    async with database.transaction() as connection:
        return await rows.put_in_unread(connection, group)


@pytest.fixture
def put(database: Database, alice: UserRow) -> Put:
    """Puts in some content of one place, from a source or a server."""

    async def put(*labels: Any, **more: Any) -> tuple[UUID, bool]:
        (kept,) = await put_in(database, [labelled(alice, *labels, **more)])
        return kept

    return put


async def end(database: Database, upload_id: UUID, state: State = State.DELIVERED) -> None:
    (claim,) = await rows.claim(database, upload_id)
    change = Change(
        upload_id=upload_id,
        source=State.SENDING,
        target=state,
        reason=Reason.ID_COLLISION if state is State.REFUSED else None,
        lease_id=claim.lease_id,
        maybe_sent=False,
    )
    async with database.transaction() as connection:
        await leases.record(connection, [Outcome(claim=claim, change=change, code="code")])


async def collides(database: Database, upload_id: UUID) -> bool:
    (claim,) = await rows.claim(database, upload_id)
    return claim.collides


async def records(database: Database) -> list[Row[Any]]:
    """The records that are no aliases."""
    async with database.transaction() as connection:
        found = await connection.execute(
            text("SELECT * FROM records WHERE alias_of IS NULL ORDER BY id")
        )
        return list(found)


async def states(database: Database, *ids: UUID) -> list[tuple[str, str | None]]:
    found = [await rows.row(database, id_) for id_ in ids]
    return [(row.state, row.reason) for row in found]


async def test_equal_content_under_two_labels_is_one_record(database: Database, put: Put) -> None:
    first, _ = await put("c", "old name")
    await end(database, first)
    assert await put("c", "new name") == (first, True)
    assert await put("c", "new name") == (first, True)
    update, duplicate = await put("c2", "new name")
    assert not duplicate
    assert (await rows.row(database, update)).version == 2
    assert not await collides(database, update)
    assert len(await records(database)) == 1


async def test_labels_that_are_names_of_one_source_are_so_everywhere(
    database: Database, put: Put
) -> None:
    first, _ = await put("c", "old name")
    other, _ = await put("d", "old name", place=OTHER_PLACE)
    assert await put("c", "new name") == (first, True)
    changed, _ = await put("d2", "new name", place=OTHER_PLACE)
    assert await states(database, other, changed) == [
        (State.SUPERSEDED, Reason.NEWER_VERSION),
        (State.QUEUED, Reason.NEW),
    ]
    assert (await rows.row(database, changed)).version == 2


async def test_in_one_group_equal_content_tells_what_the_labels_are_first(
    database: Database, alice: UserRow
) -> None:
    places = {number: b"%032d" % number for number in range(3)}
    before = [labelled(alice, f"c{number}", "old", place=places[number]) for number in places]
    await put_in(database, before)
    after = [
        labelled(alice, "changed" if number == 0 else f"c{number}", "new", place=places[number])
        for number in places
    ]
    kept = await put_in(database, after)
    assert [duplicate for _, duplicate in kept] == [False, True, True]
    assert len(await records(database)) == 3


async def test_names_of_three_are_one_source_whichever_were_met_first(
    database: Database, put: Put
) -> None:
    await put("a", "one")
    await put("a", "two")
    await put("b", "three", place=OTHER_PLACE)
    await put("b", "four", place=OTHER_PLACE)
    third = b"third place".ljust(32, b"\0")
    await put("c", "one", place=third)
    assert (await put("c", "four", place=third))[1]
    fourth = b"fourth place".ljust(32, b"\0")
    await put("d", "two", place=fourth)
    update, _ = await put("d2", "three", place=fourth)
    assert (await rows.row(database, update)).version == 2


async def test_different_content_under_two_labels_collides(database: Database, put: Put) -> None:
    first, _ = await put("c", "a")
    second, _ = await put("d", "b")
    assert await collides(database, second)
    assert not await collides(database, first)
    assert len(await records(database)) == 2


async def test_one_server_has_one_record_whatever_its_labels_and_content(
    database: Database, put: Put
) -> None:
    first, _ = await put("c", "old name", "server")
    await end(database, first)
    second, _ = await put("d", "new name", "server")
    assert (await rows.row(database, second)).version == 2
    third, _ = await put("e", None, "server")
    assert (await rows.row(database, third)).version == 3
    # Different content says nothing about the labels.
    await put("x", "old name", place=OTHER_PLACE)
    other, _ = await put("y", "new name", place=OTHER_PLACE)
    assert (await rows.row(database, other)).version == 1


async def test_two_servers_with_equal_content_are_a_duplicate_and_no_aliases(
    database: Database, put: Put
) -> None:
    first, _ = await put("c", "a", "server a")
    await end(database, first)
    assert await put("c", "b", "server b") == (first, True)
    assert await put("c", "b", "server b") == (first, True)
    second, duplicate = await put("d", "b", "server b")
    assert not duplicate
    assert await collides(database, second)
    other, _ = await put("x", "a", place=OTHER_PLACE)
    await put("y", "b", place=OTHER_PLACE)
    assert (await states(database, other)) == [(State.QUEUED, Reason.NEW)]


async def test_equal_content_of_another_server_that_was_given_up_is_sent_on_its_own(
    database: Database, put: Put
) -> None:
    first, _ = await put("c", "a", "server a")
    await rows.bring_to(database, first, State.CANCELLED)
    second, duplicate = await put("c", "b", "server b")
    assert not duplicate
    assert not await collides(database, second)


async def test_names_of_one_source_part_when_their_servers_turn_out_to_differ(
    database: Database, put: Put
) -> None:
    first, _ = await put("c", "a")
    assert await put("c", "b") == (first, True)
    await put("c2", "a", "server a")
    second, _ = await put("d", "b", "server b")
    assert (await rows.row(database, second)).version == 1
    assert await collides(database, second)


async def test_a_record_without_a_label_joins_by_equal_content_only(
    database: Database, put: Put
) -> None:
    first, _ = await put("c", "a")
    assert await put("c") == (first, True)
    update, _ = await put("c2")
    assert (await rows.row(database, update)).version == 2
    await put("x", "a", place=OTHER_PLACE)
    other, _ = await put("y", place=OTHER_PLACE)
    assert (await rows.row(database, other)).version == 1


async def test_a_source_that_is_learnt_later_is_noted(database: Database, put: Put) -> None:
    first, _ = await put("c")
    assert await put("c", "a", "server") == (first, True)
    (record,) = await records(database)
    assert (record.source_key, record.server_key) == (b"a", b"server")
    again, _ = await put("d", "b", "server")
    assert (await rows.row(database, again)).version == 2


async def test_one_source_with_two_record_ids_and_equal_content_is_one_record(
    database: Database, put: Put
) -> None:
    first, _ = await put("c", "a", record="1")
    assert await put("c", "a", record="2") == (first, True)
    third, _ = await put("d", "a", record="3")
    assert await collides(database, third)


async def test_both_labels_at_once_are_one_record_hundreds_of_times(
    database: Database, alice: UserRow
) -> None:
    async def at_once(number: int) -> None:
        place = b"%032d" % number
        pair = [labelled(alice, "c", source, place=place) for source in ("a", "b")]
        kept = await asyncio.gather(*(put_in(database, [new]) for new in pair))
        assert sorted(duplicate for ((_, duplicate),) in kept) == [False, True]
        assert kept[0][0][0] == kept[1][0][0]

    for start in range(0, 200, 4):
        await asyncio.gather(*(at_once(start + number) for number in range(4)))
    assert len(await records(database)) == 200


async def test_groups_of_two_labels_at_once_wait_for_each_other_and_never_for_ever(
    database: Database, alice: UserRow
) -> None:
    for round_ in range(5):
        groups = [
            [labelled(alice, f"{n}", source, place=b"%16d%16d" % (round_, n)) for n in order]
            for source, order in (("a", range(40)), ("b", range(39, -1, -1)))
        ]
        kept = await asyncio.gather(*(put_in(database, group) for group in groups))
        assert {id_ for id_, _ in kept[0]} == {id_ for id_, _ in kept[1]}


async def collided(database: Database, put: Put) -> tuple[UUID, UUID]:
    """One that was delivered, and one of another label that was refused because of it."""
    first, _ = await put("c", "a")
    await end(database, first)
    second, _ = await put("d", "b")
    await end(database, second, State.REFUSED)
    return first, second


async def test_a_record_that_collided_joins_when_its_content_turns_out_to_be_equal(
    database: Database, put: Put
) -> None:
    first, second = await collided(database, put)
    assert await put("c", "b") == (first, True)
    assert await states(database, second) == [(State.SUPERSEDED, Reason.NEWER_VERSION)]
    third, _ = await put("e", "b")
    assert (await rows.row(database, third)).version == 3
    assert not await collides(database, third)
    assert len(await records(database)) == 1


async def test_nothing_of_a_record_that_joined_another_is_redriven(
    database: Database, put: Put
) -> None:
    first, second = await collided(database, put)
    await rows.bring_to(database, second, State.EXPIRED)
    assert await put("c", "b") == (first, True)
    async with database.transaction() as connection:
        redriven = await dead_letters.redrive(connection, [second], settle_seconds=0, by=SYSTEM)
    assert redriven.superseded == [second]


async def test_of_two_that_were_delivered_the_older_goes_on_and_the_other_is_told(
    database: Database, put: Put
) -> None:
    first, second = await collided(database, put)
    # As with UPLIFT_ALLOW_SHARED_IDS, or where 1upHealth gives ids of its own.
    await rows.set_delivered(database, second, 1, b"d")
    await rows.bring_to(database, second, State.DELIVERED)
    waiting, _ = await put("d2", "b")
    await rows.bring_to(database, waiting, State.QUEUED, maybe_sent=True)
    last, _ = await put("d3", "b")
    assert await put("c", "b") == (first, True)
    told = [await rows.row(database, id_) for id_ in (first, second, waiting, last)]
    assert [row.possible_duplicate for row in told] == [False, True, True, False]
    assert [row.cancel_requested for row in told] == [False, False, True, False]
    assert told[3].state == State.SUPERSEDED
    update, _ = await put("e", "b")
    assert (await rows.row(database, update)).record_id == told[0].record_id


async def test_the_one_that_may_be_there_goes_on_though_another_came_first(
    database: Database, put: Put
) -> None:
    first, _ = await put("c", "a")
    second, _ = await put("d", "b")
    await rows.bring_to(database, second, State.QUEUED, maybe_sent=True)
    update, _ = await put("d", "a")
    assert update == second
    assert await states(database, first) == [(State.SUPERSEDED, Reason.NEWER_VERSION)]
    # The next label meets the one that goes on.
    assert await put("d", "third") == (second, True)


async def test_a_record_that_was_delivered_stays_where_it_is_whatever_its_id_is_now(
    database: Database, alice: UserRow, put: Put
) -> None:
    first, _ = await put("c", "a")
    await end(database, first)
    identity = (await rows.record_of(database, first)).identity
    moved = rows.new_upload(alice, identity=identity, upstream_key=OTHER_PLACE)
    await put_in(database, [moved])
    assert (await rows.record_of(database, moved.id)).upstream_key == PLACE
