"""What the doctor says of the latest calls, of held uploads and of dead letters."""

import pytest
from sqlalchemy import text

from tests.uplift.ledger import rows
from uplift.doctor import calls, queues, work
from uplift.doctor.findings import Verdict, worst
from uplift.ledger.backlog import Overdue
from uplift.ledger.database import Database
from uplift.ledger.recent_calls import DeadLetters, dead_letters, latest_statuses
from uplift.lifecycle import Reason, State
from uplift.sealing import KeyRing

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL


@pytest.mark.parametrize(
    ("statuses", "verdict", "said"),
    [
        ([], OK, "no call was answered in the last ten minutes"),
        ([201] * 200, OK, "the last 200 calls"),
        ([401] * 200, FAIL, "100% of the last 200 calls were refused: 200 of 401"),
        ([403, 201] * 100, FAIL, "100 of 403"),
        ([400, 400, 201, 201, 201] * 40, FAIL, "40% of the last 200 calls"),
        ([404] * 10, FAIL, "10 of 404"),
        ([404] * 4, OK, "the last 4 calls"),  # too few to say so
        ([400] + [201] * 19, OK, "the last 20 calls"),
        ([401] * 10 + [201] * 190, FAIL, "100% of the last 10 calls were refused: 10 of 401"),
        ([401] * 4 + [201] * 196, OK, "the last 200 calls"),
        ([201] * 20 + [401] * 180, OK, "the last 200 calls"),  # it is past
        ([201] * 19 + [401] * 180, FAIL, "were refused"),
        ([503] * 6, FAIL, "none of the last 6 calls succeeded: 6 of 503"),
        ([422] * 3 + [409] * 3, FAIL, "none of the last 6 calls succeeded"),
        ([503] * 199 + [201], OK, "the last 200 calls"),
        ([503] * 4, OK, "the last 4 calls"),  # too few to say so
        ([429] * 50 + [201] * 50, WARN, "50 of the last 100 calls were answered 429"),
        ([429] * 5 + [201] * 95, OK, "the last 100 calls"),
    ],
)
def test_the_latest_calls(statuses: list[int], verdict: Verdict, said: str) -> None:
    found = calls.judge_calls(statuses)
    assert worst(found) is verdict
    assert said in " ".join(finding.what for finding in found)


def test_other_destinations_are_not_called_1uphealth() -> None:
    for statuses in ([401] * 9, [404] * 9, [201] * 9, [429] * 9, [400] * 9, [403] * 9):
        for finding in calls.judge_calls(statuses, oneup=False):
            assert "1upHealth" not in f"{finding.what} {finding.do}"
            assert "ONEUP" not in f"{finding.what} {finding.do}"


def test_nobody_is_told_to_start_workers_against_a_429() -> None:
    late = Overdue(500, 4000.0, 0, 0.0)
    for busy, advice in ((True, "would not help"), (False, "start more")):
        (finding,) = work.judge_work(late, busy=busy)
        assert advice in (finding.do or "")
    (first, *_) = calls.judge_calls([429] * 100)
    assert "fewer workers" in (first.do or "")


@pytest.mark.parametrize(
    ("held", "statuses", "verdict"),
    [(0, [], OK), (3, [], FAIL), (3, [403] * 9, FAIL), (3, [201, 403], WARN)],
)
def test_held_uploads(held: int, statuses: list[int], verdict: Verdict) -> None:
    assert worst(calls.judge_held(held, statuses)) is verdict


@pytest.mark.parametrize(
    ("found", "statuses", "verdict"),
    [
        (DeadLetters(0, 0), [], OK),
        (DeadLetters(5, 0), [], WARN),
        (DeadLetters(5, 1), [], FAIL),
        (DeadLetters(5, 1), [503, 201], FAIL),
        (DeadLetters(5, 1), [201] * 20, WARN),
    ],
)
def test_dead_letters(found: DeadLetters, statuses: list[int], verdict: Verdict) -> None:
    assert worst(calls.judge_dead_letters(found, statuses)) is verdict


@pytest.mark.parametrize("word", ["READONLY", "OOM", "MISCONF", "NOPERM", "LOADING", "ERR"])
def test_a_redis_that_refuses_is_told_by_its_own_word(word: str) -> None:
    found = queues.judge_refusal(word)
    assert found.verdict is FAIL
    assert word in found.what
    assert "uploads are accepted" in (found.do or "")


async def test_only_calls_of_the_last_minutes_count_and_the_newest_come_first(
    database: Database, key_ring: KeyRing
) -> None:
    alice = await rows.add_user(database, key_ring)
    for seconds, status in ((1200, 401), (300, 403), (2, 201), (5, None)):
        upload_id = await rows.put(database, alice)
        await rows.claim(database, upload_id)
        async with database.transaction() as connection:
            await connection.execute(
                text(
                    "UPDATE attempts SET closed_at = now() - make_interval(secs => :seconds),"
                    " opened_at = now() - make_interval(secs => :seconds), status_code = :status"
                    " WHERE upload_id = :id"
                ),
                {"seconds": seconds, "status": status, "id": upload_id},
            )
    async with database.transaction() as connection:
        assert await latest_statuses(connection) == [201, 403]


async def test_dead_letters_are_counted_until_they_are_redriven(
    database: Database, key_ring: KeyRing
) -> None:
    alice = await rows.add_user(database, key_ring)
    for state in (State.EXPIRED, State.EXPIRED, State.REFUSED, State.REJECTED, State.QUEUED):
        upload_id = await rows.put(database, alice)
        await rows.bring_to(database, upload_id, state, reason=Reason.GAVE_UP)
    async with database.transaction() as connection:
        assert await dead_letters(connection, days=7, limit=99) == DeadLetters(3, 2)
        assert await dead_letters(connection, days=7, limit=1) == DeadLetters(1, 1)
