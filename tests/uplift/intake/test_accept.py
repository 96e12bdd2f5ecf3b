"""Submissions committed: who they are for, what is kept of them, and what is there already."""

import asyncio
from typing import Any
from uuid import UUID

import orjson
import pytest
import redis.asyncio
from pydantic import SecretStr
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from tests.factories import resource, submission
from tests.uplift.ledger import rows
from tests.uplift.test_dispatch import all_ids
from uplift.dispatch import Dispatcher
from uplift.errors import NotFound, SealError
from uplift.identity import canonical, content_digest
from uplift.intake.accept import Accepted, Acceptor
from uplift.intake.back_pressure import BackPressure
from uplift.intake.labels import Labels
from uplift.intake.submission import Submission, parse
from uplift.ledger import audit
from uplift.ledger.audit import Action, Actor
from uplift.ledger.database import Database
from uplift.ledger.tables import Record, Upload
from uplift.ledger.uploads import body_context
from uplift.ledger.users import UserRow
from uplift.lifecycle import Reason, State
from uplift.queues import BULK, UPLOADS
from uplift.sealing import KeyRing
from uplift.settings import Settings


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    return await rows.add_user(database, key_ring)


@pytest.fixture
def acceptor(
    database: Database, key_ring: KeyRing, dispatcher: Dispatcher, own_settings: Settings
) -> Acceptor:
    return Acceptor(database, key_ring, dispatcher, BackPressure(database, own_settings), {})


async def count(database: Database) -> tuple[int, int]:
    """How many records and uploads there are."""
    async with database.transaction() as connection:
        records = await connection.execute(select(func.count()).select_from(Record))
        uploads = await connection.execute(select(func.count()).select_from(Upload))
        return records.scalar_one(), uploads.scalar_one()


async def accept(acceptor: Acceptor, **submitted: Any) -> Accepted:
    return await acceptor.accept("alice", submission(**submitted))


async def test_an_accepted_upload_is_committed_queued_and_dispatched(
    acceptor: Acceptor,
    alice: UserRow,
    database: Database,
    dispatcher: Dispatcher,
    client: "redis.asyncio.Redis",
    own_settings: Settings,
) -> None:
    dispatcher.start()
    accepted = await accept(acceptor)
    row = accepted.upload
    assert (accepted.duplicate, row.state, row.app_user_id) == (False, State.QUEUED, "alice")
    assert (row.fhir_version, row.resource_type) == ("R4", "Observation")
    kept = await rows.row(database, row.id)
    assert kept.finish_tag is not None
    await dispatcher.close()
    assert await all_ids(client) == [row.id]


async def test_a_submission_for_another_queue_is_kept_and_dispatched_there(
    acceptor: Acceptor,
    alice: UserRow,
    database: Database,
    dispatcher: Dispatcher,
    client: "redis.asyncio.Redis",
) -> None:
    dispatcher.start()
    accepted = await acceptor.accept("alice", submission(), queue=BULK)
    await dispatcher.close()
    assert (await rows.row(database, accepted.upload.id)).queue == BULK
    assert await all_ids(client, BULK) == [accepted.upload.id]
    assert await all_ids(client, UPLOADS) == []


async def test_without_redis_an_upload_is_accepted_all_the_same(
    database: Database, key_ring: KeyRing, alice: UserRow, own_settings: Settings
) -> None:
    dispatcher = Dispatcher(
        own_settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    )
    dispatcher.start()
    acceptor = Acceptor(database, key_ring, dispatcher, BackPressure(database, own_settings), {})
    assert (await accept(acceptor)).upload.state is State.QUEUED
    await dispatcher.close()


async def test_the_exact_bytes_of_the_resource_are_kept_sealed_for_its_row(
    acceptor: Acceptor, alice: UserRow, database: Database, key_ring: KeyRing
) -> None:
    inner = b'{ "resourceType":"Condition",\r\n"note":[{"text":"canary \\u00e9 1.50"}],"n":1.500 }'
    body = b'{"fhirVersion":"R4","resource":' + inner + b',"user":"alice"}'
    accepted = await acceptor.accept("alice", parse(body, Labels()))
    row = await rows.row(database, accepted.upload.id)
    assert alice.key(key_ring).open(row.sealed_body, body_context(row.id)) == inner
    assert row.body_bytes == len(inner)
    with pytest.raises(SealError):
        alice.key(key_ring).open(row.sealed_body, body_context(alice.id))


async def test_nothing_of_the_record_is_readable_in_the_ledger(
    acceptor: Acceptor, alice: UserRow, database: Database
) -> None:
    await accept(
        acceptor,
        id="canary-id",
        source="canary-source",
        record_id="canary-record",
        note=[{"text": "canary-note"}],
    )
    async with database.transaction() as connection:
        found = await connection.execute(
            text("SELECT r::text FROM records AS r UNION ALL SELECT u::text FROM uploads AS u")
        )
        shown = found.scalars().all()
    assert len(shown) == 2
    assert "canary" not in str(shown)
    assert b"canary".hex() not in str(shown)


async def test_an_unknown_user_is_not_found_and_nothing_is_kept(
    acceptor: Acceptor, alice: UserRow, database: Database
) -> None:
    for name in ("bob", "Alice", "", "alice ", "x" * 1000):
        with pytest.raises(NotFound, match="no such user"):
            await acceptor.accept(name, submission())
    assert await count(database) == (0, 0)


async def test_the_same_submission_again_is_a_duplicate_that_is_not_dispatched(
    acceptor: Acceptor,
    alice: UserRow,
    database: Database,
    dispatcher: Dispatcher,
    client: "redis.asyncio.Redis",
) -> None:
    dispatcher.start()
    first = await accept(acceptor)
    again = await accept(acceptor)
    assert (again.upload.id, again.duplicate) == (first.upload.id, True)
    assert await count(database) == (1, 1)
    await dispatcher.close()
    assert await all_ids(client) == [first.upload.id]


@pytest.mark.parametrize("wrapped", [False, True])
async def test_the_same_content_in_another_spelling_is_a_duplicate(
    acceptor: Acceptor, alice: UserRow, wrapped: bool
) -> None:
    labels = Labels(fhir_version="R4", source="s", record_id="1")
    one = b'{"resourceType": "Condition", "n": 72.0, "t": "\\u00e9"}'
    other = '{"t":"é",\n"n":72,"resourceType":"Condition"}'.encode()
    if wrapped:
        other = b'{"resource": ' + other + b"}"
    first = await acceptor.accept("alice", parse(one, labels))
    again = await acceptor.accept("alice", parse(other, labels))
    assert (again.upload.id, again.duplicate) == (first.upload.id, True)


async def test_a_record_downloaded_again_is_a_duplicate_and_its_first_bytes_are_sent(
    acceptor: Acceptor, alice: UserRow, database: Database, key_ring: KeyRing
) -> None:
    days = [{"versionId": str(day), "lastUpdated": f"2026-01-0{day}T00:00:00Z"} for day in (1, 2)]
    accepted = [await accept(acceptor, meta=meta) for meta in days]
    assert [each.duplicate for each in accepted] == [False, True]
    row = await rows.row(database, accepted[0].upload.id)
    body = alice.key(key_ring).open(row.sealed_body, body_context(row.id))
    assert body == submission(meta=days[0]).body
    tagged = await accept(acceptor, meta={**days[1], "tag": [{"code": "a"}]})
    assert not tagged.duplicate


async def test_an_older_version_is_superseded_and_not_dispatched(
    acceptor: Acceptor, alice: UserRow, dispatcher: Dispatcher, client: "redis.asyncio.Redis"
) -> None:
    dispatcher.start()
    first = await accept(acceptor, meta={"lastUpdated": "2026-01-02T00:00:00Z"})
    late = await accept(acceptor, meta={"lastUpdated": "2026-01-01T00:00:00Z"}, note="older")
    assert (late.duplicate, late.upload.state) == (False, State.SUPERSEDED)
    assert late.upload.reason == Reason.OLDER_VERSION
    forced = await acceptor.accept(
        "alice",
        parse(
            orjson.dumps(resource(meta={"lastUpdated": "2026-01-01T00:00:00Z"}, note="older")),
            Labels(fhir_version="R4", source="hospital-a", force=True),
        ),
    )
    assert forced.upload.state is State.QUEUED
    await dispatcher.close()
    assert await all_ids(client, UPLOADS) == [first.upload.id, forced.upload.id]


async def test_when_the_phone_got_it_decides_where_no_version_says_when_it_was_updated(
    acceptor: Acceptor, alice: UserRow
) -> None:
    def received(day: int, note: str) -> Submission:
        labels = Labels(fhir_version="R4", received_at=f"2026-01-0{day}T08:00:00+01:00")
        return parse(orjson.dumps(resource(note=note)), labels)

    await acceptor.accept("alice", received(2, "new"))
    late = await acceptor.accept("alice", received(1, "old"))
    assert late.upload.reason == Reason.OLDER_VERSION


async def test_new_content_of_a_record_supersedes_what_waits(
    acceptor: Acceptor, alice: UserRow, database: Database
) -> None:
    ids = [(await accept(acceptor, status=each)).upload.id for each in ("a", "b", "c")]
    found = [await rows.row(database, id_) for id_ in ids]
    assert [row.state for row in found] == ["superseded", "superseded", "queued"]
    assert [row.version for row in found] == [1, 2, 3]
    assert await count(database) == (1, 3)


async def test_new_content_waits_behind_what_is_being_sent(
    acceptor: Acceptor, alice: UserRow, database: Database
) -> None:
    first = (await accept(acceptor, status="final")).upload.id
    (claim,) = await rows.claim(database, first)
    second = (await accept(acceptor, status="amended")).upload.id
    assert (await rows.row(database, first)).lease_id == claim.lease_id
    assert await rows.claim(database, second) == []
    await rows.bring_to(database, first, State.DELIVERED)
    assert len(await rows.claim(database, second)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"source": "hospital-b"},
        {"source": None},
        {"record_id": "another"},
        {"id": "obs-2"},
        {"resourceType": "Condition"},
        {"fhir_version": "STU3"},
    ],
)
async def test_another_source_type_id_or_version_is_another_record(
    acceptor: Acceptor, alice: UserRow, database: Database, other: dict[str, Any]
) -> None:
    await accept(acceptor)
    # Equal content would say that the two sources are one.
    assert not (await accept(acceptor, note="other", **other)).duplicate
    assert await count(database) == (2, 2)


async def test_one_hospital_under_two_labels_is_one_record(
    acceptor: Acceptor, alice: UserRow, database: Database
) -> None:
    async def send(source: str, url: str, **elements: Any) -> Accepted:
        labels = Labels(fhir_version="R4", source=source, source_url=url)
        return await acceptor.accept("alice", parse(orjson.dumps(resource(**elements)), labels))

    first = await send("North Clinic", "https://north.example/Observation/obs-1")
    again = await send("North Hospital", "https://north.example/Observation/obs-1")
    assert (again.upload.id, again.duplicate) == (first.upload.id, True)
    update = await send("Hospital", "https://north.example/Observation/obs-1", note="changed")
    assert not update.duplicate
    assert (await rows.row(database, update.upload.id)).version == 2
    await send("South", "https://south.example/Observation/obs-1", note="of another person")
    async with database.transaction() as connection:
        ranks = await connection.execute(text("SELECT upstream_rank FROM records ORDER BY 1"))
        assert [rank for rank in ranks.scalars() if rank] == [1]


async def test_the_record_id_goes_before_the_resources_own_id(
    acceptor: Acceptor, alice: UserRow, database: Database
) -> None:
    await accept(acceptor, record_id="r", id="one")
    await accept(acceptor, record_id="r", id="two")
    assert await count(database) == (1, 2)
    await accept(acceptor, record_id="", id="r")
    assert await count(database) == (1, 3)


@pytest.mark.parametrize("no_id", [None, "", 7, ["a"], {}])
async def test_without_an_id_a_record_is_its_content(
    acceptor: Acceptor, alice: UserRow, database: Database, no_id: Any
) -> None:
    first = await accept(acceptor, id=no_id, status="final")
    assert (await accept(acceptor, id=no_id, status="final")).upload.id == first.upload.id
    assert not (await accept(acceptor, id=no_id, status="amended")).duplicate
    assert await count(database) == (2, 2)
    assert (await rows.row(database, first.upload.id)).state == "queued"


async def test_the_same_record_of_two_users_is_two_uploads(
    acceptor: Acceptor, alice: UserRow, database: Database, key_ring: KeyRing
) -> None:
    await rows.add_user(database, key_ring, "bob")
    await acceptor.accept("alice", submission())
    assert not (await acceptor.accept("bob", submission())).duplicate
    async with database.transaction() as connection:
        identities = set(await connection.scalars(select(Record.identity)))
        digests = set(await connection.scalars(select(Upload.digest)))
    assert (len(identities), len(digests)) == (2, 2)


async def test_twins_submitted_at_once_are_one_upload(
    acceptor: Acceptor, alice: UserRow, database: Database
) -> None:
    accepted = await asyncio.gather(*(accept(acceptor) for _ in range(20)))
    assert len({each.upload.id for each in accepted}) == 1
    assert sorted(each.duplicate for each in accepted) == [False] + [True] * 19
    assert await count(database) == (1, 1)


async def test_versions_submitted_at_once_are_all_kept_in_one_order(
    acceptor: Acceptor, alice: UserRow, database: Database
) -> None:
    accepted = await asyncio.gather(*(accept(acceptor, status=str(n)) for n in range(12)))
    found = [await rows.row(database, each.upload.id) for each in accepted]
    found.sort(key=lambda row: row.version)
    assert [row.version for row in found] == list(range(1, 13))
    assert [row.state for row in found] == ["superseded"] * 11 + ["queued"]


async def test_submissions_that_come_together_share_a_transaction_and_get_their_own_results(
    acceptor: Acceptor, alice: UserRow, database: Database, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    actors = {"alice": Actor("key:a"), "bob": Actor("device:b"), "nobody": Actor("key:n")}
    offers = [
        (name, submission(id=f"o{number % 15}"))
        for number, name in enumerate(["alice", "bob", "nobody"] * 10)
    ]
    outcomes = await asyncio.gather(
        *(acceptor.accept(name, each, by=actors[name]) for name, each in offers),
        return_exceptions=True,
    )
    users = {"alice": alice.id, "bob": bob.id}
    accepted: dict[UUID, str] = {}
    for (name, _), outcome in zip(offers, outcomes, strict=True):
        if name == "nobody":
            assert isinstance(outcome, NotFound)
        else:
            assert isinstance(outcome, Accepted)
            assert (outcome.upload.user_id, outcome.upload.app_user_id) == (users[name], name)
            if not outcome.duplicate:
                accepted[outcome.upload.id] = name
    # Every record came twice.
    assert await count(database) == (10, 10)
    async with database.transaction() as connection:
        ids = (await connection.scalars(select(Upload.id))).all()
        transactions = await connection.execute(text("SELECT DISTINCT xmin::text FROM uploads"))
        assert len(transactions.all()) <= 2
        noted = await audit.list_events(connection)
    assert set(ids) == set(accepted)
    told = {e.upload_id: e.actor for e in noted if e.action == Action.UPLOAD_ACCEPTED}
    assert told == {id_: actors[name] for id_, name in accepted.items()}


async def test_a_user_whose_key_does_not_open_costs_no_other_their_upload(
    acceptor: Acceptor, alice: UserRow, database: Database, key_ring: KeyRing
) -> None:
    await rows.add_user(database, key_ring, "bob")
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE users SET wrapped_key = 'x' WHERE app_user_id = 'bob'")
        )
    outcomes = await asyncio.gather(
        *(acceptor.accept(name, submission(id=name)) for name in ["alice", "bob", "alice"]),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes] == [Accepted, SealError, Accepted]


async def test_what_fails_in_a_group_fails_alone(
    acceptor: Acceptor, alice: UserRow, database: Database
) -> None:
    """A trigger stands for any error of PostgreSQL about one row."""
    async with database.transaction() as connection:
        await connection.execute(
            text("""
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE 'no' USING ERRCODE = 'check_violation'; END $$
            """)
        )
        await connection.execute(
            text("""
                CREATE TRIGGER refuse BEFORE INSERT ON uploads FOR EACH ROW
                WHEN (NEW.resource_type = 'Bad') EXECUTE FUNCTION refuse()
            """)
        )
    try:
        outcomes = await asyncio.gather(
            *(accept(acceptor, resourceType=t, id=f"{n}") for n, t in enumerate(["A", "Bad"] * 5)),
            return_exceptions=True,
        )
    finally:
        async with database.transaction() as connection:
            await connection.execute(text("DROP FUNCTION refuse CASCADE"))
    assert [type(each) for each in outcomes] == [Accepted, IntegrityError] * 5
    assert await count(database) == (5, 5)


async def test_a_locked_user_does_not_block_the_others(
    acceptor: Acceptor, alice: UserRow, database: Database, key_ring: KeyRing
) -> None:
    bob = await rows.add_user(database, key_ring, "bob")
    async with database.transaction() as connection:
        await connection.execute(
            text("SELECT 1 FROM users WHERE id = :id FOR UPDATE"), {"id": bob.id}
        )
        waiting = asyncio.create_task(acceptor.accept("bob", submission()))
        await asyncio.gather(*(accept(acceptor, id=f"o{n}") for n in range(5)))
        assert not waiting.done()
    assert (await waiting).upload.user_id == bob.id


async def test_who_gives_up_waiting_costs_the_others_nothing(
    acceptor: Acceptor,
    alice: UserRow,
    database: Database,
    dispatcher: Dispatcher,
    client: "redis.asyncio.Redis",
) -> None:
    dispatcher.start()
    tasks = [asyncio.create_task(accept(acceptor, id=f"o{n}")) for n in range(6)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, Accepted) for each in outcomes[1::2])
    await dispatcher.close()
    async with database.transaction() as connection:
        assert set(await all_ids(client)) == set(await connection.scalars(select(Upload.id)))


async def test_the_digest_kept_is_of_the_content_under_the_users_key(
    acceptor: Acceptor, alice: UserRow, database: Database, key_ring: KeyRing
) -> None:
    accepted = await accept(acceptor)
    expected = content_digest(alice.key(key_ring).identity_key, canonical(resource()))
    assert (await rows.row(database, accepted.upload.id)).digest == expected


@pytest.mark.parametrize(
    "body",
    [
        {"resourceType": "Observation", "id": "\0", "note": "\0"},
        {"resourceType": "X" * 64, "id": "x" * 100_000},
        {"resourceType": "Observation", "\0": {"\0": ["\0"]}},
        {"resourceType": "Observation", "valueQuantity": {"value": 2**64 - 1}},
        {"resourceType": "Observation", "subject": None, "code": 1.7976931348623157e308},
    ],
    ids=["nul", "long", "nul names", "large", "huge"],
)
async def test_whatever_is_readable_is_accepted_for_the_worker_to_judge(
    acceptor: Acceptor, alice: UserRow, body: dict[str, Any]
) -> None:
    labels = Labels(fhir_version="STU3", source="s" * 1024, record_id=None)
    accepted = await acceptor.accept("alice", parse(orjson.dumps(body), labels))
    assert accepted.upload.state is State.QUEUED
    assert accepted.upload.fhir_version == "STU3"
