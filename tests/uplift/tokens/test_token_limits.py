"""Tokens when 1upHealth's user-management calls are spent: who waits, for how long, and who not.

Each opened relay stands for one process.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, text, update

from tests import factories
from tests.uplift.delivery.delivering import deliver_only
from uplift.errors import UpstreamUnavailable
from uplift.intake.accept import Accepted
from uplift.ledger import users
from uplift.ledger.tables import Grant, Upload
from uplift.ledger.token_pair import TokenPair
from uplift.ledger.uploads import UploadRow
from uplift.lifecycle import Reason, State
from uplift.queues import UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

OpenAnother = Callable[[], Awaitable[Relay]]

USER_MANAGEMENT = {"api": "user-management"}
REFUSE_REFRESH = {"kind": "refuse_refresh"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Five calls an hour, two of them for new users."""
    return settings.model_copy(update={"oneup_quota_calls": 5, "oneup_quota_reserve": 2})


@pytest.fixture
async def open_another(settings: Settings) -> AsyncIterator[OpenAnother]:
    """Opens the relay of another process."""
    async with AsyncExitStack() as stack:

        async def open_one() -> Relay:
            return await stack.enter_async_context(open_relay(settings))

        yield open_one


async def spend(relay: Relay, *, calls: int) -> None:
    """Sign so many people up."""
    for number in range(calls):
        await relay.provisioner.provision(f"somebody-{number}")


async def expire(relay: Relay) -> None:
    """Let every token be over."""
    async with relay.database.transaction() as connection:
        await connection.execute(update(Grant).values(expires_at=text("now() - interval '1 s'")))


async def deliver(relay: Relay, *accepted: Accepted) -> list[UploadRow]:
    """One attempt at each, whatever the retry clock says."""
    ids = [each.upload.id for each in accepted]
    async with relay.database.transaction() as connection:
        await connection.execute(
            update(Upload)
            .where(Upload.id.in_(ids), Upload.state == State.QUEUED)
            .values(next_attempt_at=text("now()"))
        )
    await deliver_only(relay, *ids)
    return [await factories.status(relay, each) for each in accepted]


async def seconds_of(relay: Relay, accepted: Accepted) -> tuple[float, float]:
    """Until the upload is due, and from then until it gives up."""
    async with relay.database.transaction() as connection:
        row = (
            await connection.execute(
                select(
                    text("extract(epoch FROM next_attempt_at - now())::float8 AS wait"),
                    text("extract(epoch FROM give_up_at - next_attempt_at)::float8 AS clock"),
                )
                .select_from(Upload)
                .where(Upload.id == accepted.upload.id)
            )
        ).one()
    return row.wait, row.clock


def asked(upstream: SandboxServer, **about: Any) -> int:
    """How many requests of that kind 1upHealth was sent."""
    return sum(
        all(each[name] == value for name, value in about.items()) for each in upstream.requests()
    )


@pytest.fixture
async def waiting(relay: Relay, upstream: SandboxServer) -> Accepted:
    """An upload of alice, whose refresh token is refused when the calls are spent."""
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    await spend(relay, calls=2)
    await expire(relay)
    upstream.faults(REFUSE_REFRESH)
    return accepted


# --- uploads wait --------------------------------------------------------------------------------


async def test_an_upload_waits_visibly_until_the_quota_has_a_free_call(
    relay: Relay, upstream: SandboxServer, waiting: Accepted
) -> None:
    calls = asked(upstream, api="user-management")

    [row] = await deliver(relay, waiting)

    assert (row.state, row.reason) == (State.QUEUED, Reason.AWAITING_TOKEN)
    assert row.last_response == "quota_spent"
    wait, _ = await seconds_of(relay, waiting)
    assert 3600 - 60 < wait < 3600 * 1.05 + 1
    assert asked(upstream, api="user-management") == calls
    assert asked(upstream, api="fhir") == 0


async def test_waiting_for_the_quota_costs_no_attempt_and_no_time(
    relay: Relay, settings: Settings, waiting: Accepted
) -> None:
    for _ in range(3):
        [row] = await deliver(relay, waiting)
        assert row.attempts == 0
        assert not row.maybe_sent
        wait, clock = await seconds_of(relay, waiting)
        assert wait < 3600 * 1.05 + 1
        # When it is tried again, it has as much time left as it had before it waited.
        assert clock == pytest.approx(settings.give_up_seconds, abs=60)
        async with relay.database.transaction() as connection:  # an hour passes
            await connection.execute(
                text("UPDATE uploads SET give_up_at = give_up_at - (next_attempt_at - now())")
            )


async def test_an_attempt_before_the_wait_stays_counted(
    relay: Relay, upstream: SandboxServer, waiting: Accepted
) -> None:
    upstream.faults({"kind": "status", "status": 503, "match": {"api": "token"}})
    [row] = await deliver(relay, waiting)
    assert (row.reason, row.attempts) == (Reason.NO_TOKEN, 1)
    upstream.faults(REFUSE_REFRESH)

    [row] = await deliver(relay, waiting)

    assert (row.reason, row.attempts) == (Reason.AWAITING_TOKEN, 1)


async def test_many_uploads_of_one_user_meet_the_limit_once(
    relay: Relay, upstream: SandboxServer, waiting: Accepted
) -> None:
    many = [waiting, *[await factories.accepted(relay, id=f"obs-{n}") for n in range(2, 30)]]

    for _ in range(2):
        rows = await deliver(relay, *many)
        assert {row.reason for row in rows} == {Reason.AWAITING_TOKEN}

    assert asked(upstream, grant_type="refresh_token") == 1


async def test_those_who_wait_do_not_all_come_back_at_once(relay: Relay, waiting: Accepted) -> None:
    many = [waiting, *[await factories.accepted(relay, id=f"obs-{n}") for n in range(2, 12)]]
    await deliver(relay, *many)
    waits = sorted([(await seconds_of(relay, each))[0] for each in many])
    assert waits[-1] - waits[0] > 10


async def test_all_of_a_user_go_on_when_one_has_a_token(
    relay: Relay, upstream: SandboxServer, waiting: Accepted
) -> None:
    others = [await factories.accepted(relay, id=f"obs-{n}") for n in range(2, 6)]
    await deliver(relay, waiting, *others)
    upstream.clear_faults()
    async with relay.database.transaction() as connection:
        # As if the hour were over: another process knows of no limit.
        await connection.execute(text("UPDATE grants SET version = version + 1"))

    [first] = await deliver(relay, waiting)

    assert first.state is State.DELIVERED
    for each in others:
        assert (await seconds_of(relay, each))[0] <= 0


async def test_1uphealths_own_429_makes_everybody_wait_who_needs_a_code(
    relay: Relay, upstream: SandboxServer, open_another: OpenAnother
) -> None:
    await factories.user(relay)
    await factories.user(relay, "bob")
    uploads = [await factories.accepted(relay), await factories.accepted(relay, "bob")]
    await expire(relay)
    upstream.faults(
        REFUSE_REFRESH, {"kind": "too_many_requests", "retry_after": 90, "match": USER_MANAGEMENT}
    )
    calls = asked(upstream, api="user-management")

    [first] = await deliver(relay, uploads[0])
    [second] = await deliver(await open_another(), uploads[1])

    assert (first.reason, first.last_response) == (Reason.AWAITING_TOKEN, "http_429")
    assert (second.reason, second.last_response) == (Reason.AWAITING_TOKEN, "quota_spent")
    assert asked(upstream, api="user-management") == calls + 1
    for each in uploads:
        assert 60 < (await seconds_of(relay, each))[0] < 90 + 180 + 1


async def test_a_busy_token_endpoint_makes_its_user_wait_as_long_as_it_says(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = [await factories.accepted(relay, id=f"obs-{n}") for n in range(5)]
    await expire(relay)
    upstream.faults({"kind": "too_many_requests", "retry_after": 90, "match": {"api": "token"}})

    rows = await deliver(relay, *accepted)

    assert {(row.reason, row.attempts) for row in rows} == {(Reason.AWAITING_TOKEN, 0)}
    assert asked(upstream, grant_type="refresh_token") == 1


async def test_a_refresh_needs_no_user_management_calls(
    relay: Relay, upstream: SandboxServer, waiting: Accepted
) -> None:
    upstream.clear_faults()
    [row] = await deliver(relay, waiting)
    assert row.state is State.DELIVERED


# --- what ends the wait --------------------------------------------------------------------------


async def test_a_new_grant_ends_the_wait_at_once(
    relay: Relay, upstream: SandboxServer, waiting: Accepted
) -> None:
    await deliver(relay, waiting)
    given = upstream.grant("alice")

    await relay.provisioner.bring_grant(
        "alice", TokenPair(given["access_token"], given["refresh_token"], 7200.0)
    )

    assert (await seconds_of(relay, waiting))[0] <= 0
    await deliver_only(relay, waiting.upload.id)
    assert (await factories.status(relay, waiting)).state is State.DELIVERED


async def test_a_new_grant_ends_no_other_wait(relay: Relay, upstream: SandboxServer) -> None:
    """What may be stored must settle before it is looked for, whoever has a new token."""
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    upstream.faults({"kind": "status", "status": 503, "headers": {"Retry-After": "99"}})
    await deliver(relay, accepted)
    assert (await factories.status(relay, accepted)).reason == Reason.SETTLING

    await relay.provisioner.bring_grant("alice", TokenPair("access", "refresh", 7200.0))

    assert (await seconds_of(relay, accepted))[0] > 60


async def test_the_waiting_are_delivered_when_the_quota_has_free_calls(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    brief = settings.model_copy(update={"oneup_quota_seconds": 1.0})
    async with open_relay(brief) as process:
        names = [f"user-{n}" for n in range(9)]
        for name in names:
            await bring_as_user_management(process, upstream, name)
        accepted = [await factories.accepted(process, name) for name in names]
        await expire(process)
        upstream.faults(REFUSE_REFRESH)
        rows = await deliver(process, *accepted)
        assert sum(row.state is State.DELIVERED for row in rows) == 3
        assert sum(row.reason == Reason.AWAITING_TOKEN for row in rows) == 6

        async with asyncio.timeout(30):
            while any(row.state is not State.DELIVERED for row in rows):
                await deliver_only(process, *(row.id for row in rows))
                rows = [await factories.status(process, each) for each in accepted]
                await asyncio.sleep(0.05)

    assert asked(upstream, api="user-management", status=429) == 0
    assert {row.attempts for row in rows} == {1}


async def bring_as_user_management(relay: Relay, upstream: SandboxServer, name: str) -> None:
    """A user as if signed up long ago."""
    given = upstream.grant(name)
    await relay.provisioner.bring_grant(
        name, TokenPair(given["access_token"], given["refresh_token"], 7200.0)
    )
    async with relay.database.transaction() as connection:
        await connection.execute(text("UPDATE grants SET origin = 'user_management'"))


# --- new users -----------------------------------------------------------------------------------


async def test_new_users_have_a_reserve(
    relay: Relay, upstream: SandboxServer, waiting: Accepted
) -> None:
    [row] = await deliver(relay, waiting)
    assert row.reason == Reason.AWAITING_TOKEN

    assert (await relay.provisioner.provision("new-1"))[1]
    assert (await relay.provisioner.provision("new-2"))[1]

    with pytest.raises(UpstreamUnavailable, match="limit"):
        await relay.provisioner.provision("new-3")


async def test_adopting_a_user_costs_two_calls_of_the_same_purse(
    relay: Relay, upstream: SandboxServer, waiting: Accepted
) -> None:
    upstream.grant("known")
    upstream.clear_faults()
    assert (await relay.provisioner.provision("known"))[1]
    with pytest.raises(UpstreamUnavailable):
        await relay.provisioner.provision("new")


async def test_a_new_user_over_the_limit_is_told_when_to_come_back_and_1uphealth_is_not_asked(
    relay: Relay, upstream: SandboxServer
) -> None:
    await spend(relay, calls=5)
    before = len(upstream.requests())

    with pytest.raises(UpstreamUnavailable, match="limit on user-management calls") as raised:
        await relay.provisioner.provision("late")

    assert 3600 - 60 < (raised.value.retry_after or 0) <= 3601
    assert len(upstream.requests()) == before
    async with relay.database.transaction() as connection:
        user = await users.find_user(connection, "late")
    assert user is not None
    assert user.grant_state is None


# --- what is counted -----------------------------------------------------------------------------


@pytest.fixture
def counted() -> Callable[..., float]:
    """How much a metric has risen in this test."""

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"uplift_{name}_total", labels) or 0.0

    before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
    }
    return lambda name, **labels: (
        value(name, **labels) - before.get((f"uplift_{name}_total", frozenset(labels.items())), 0.0)
    )


async def test_calls_and_tokens_are_counted(
    counted: Callable[..., float], relay: Relay, upstream: SandboxServer, waiting: Accepted
) -> None:
    await deliver(relay, waiting)
    upstream.clear_faults()
    await deliver(relay, await factories.accepted(relay, "somebody-0"))
    upstream.faults({"kind": "too_many_requests", "match": USER_MANAGEMENT})
    with pytest.raises(UpstreamUnavailable):
        await relay.provisioner.provision("late")

    calls = [counted("quota_calls", outcome=each) for each in ("made", "withheld", "refused")]
    assert calls == [4, 1, 1]  # three users and the late one; a code for alice; the late one
    assert counted("tokens_renewed", by="refresh") == 1


@pytest.mark.parametrize("origin", ["user_management", "backend"])
async def test_ended_grants_and_what_they_park_are_counted(
    counted: Callable[..., float], relay: Relay, upstream: SandboxServer, origin: str
) -> None:
    await bring_as_user_management(relay, upstream, "alice")
    async with relay.database.transaction() as connection:
        await connection.execute(update(Grant).values(origin=origin))
    accepted = [await factories.accepted(relay, id=f"obs-{n}") for n in range(4)]
    await expire(relay)
    upstream.faults({"kind": "end_consent"})

    rows = await deliver(relay, *accepted[:2])

    assert {row.state for row in rows} == {State.PARKED}
    assert counted("grants_ended", origin=origin) == 1
    assert counted("uploads_parked") == 4


# --- between processes ---------------------------------------------------------------------------


async def test_who_comes_second_waits_for_the_first_ones_token(
    relay: Relay, upstream: SandboxServer, open_another: OpenAnother
) -> None:
    await factories.user(relay)
    accepted = [await factories.accepted(relay, id=f"obs-{n}") for n in range(8)]
    await expire(relay)
    upstream.faults({"kind": "slow", "seconds": 0.5, "match": {"api": "token"}})
    processes = [relay, *[await open_another() for _ in range(3)]]

    await asyncio.gather(*(process.deliverer.deliver(UPLOADS) for process in processes))

    rows = [await factories.status(relay, each) for each in accepted]
    assert {(row.state, row.attempts) for row in rows} == {(State.DELIVERED, 1)}
    assert asked(upstream, grant_type="refresh_token") == 1


async def test_who_waits_too_long_for_another_process_is_queued_without_an_attempt(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    async with relay.database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE grants SET expires_at = now() - interval '1 s',"
                " refreshing_until = now() + interval '60 s'"
            )
        )

    [row] = await deliver(relay, accepted)

    assert (row.state, row.reason, row.attempts) == (State.QUEUED, Reason.AWAITING_TOKEN, 0)
    assert row.last_response == "another_is_refreshing"
    wait, _ = await seconds_of(relay, accepted)
    assert wait < 2
    assert asked(upstream, grant_type="refresh_token") == 0


# --- a refresh whose response is lost ------------------------------------------------------------

LOST = {
    "kind": "cut",
    "commit": True,
    "count": 1,
    "match": {"api": "token", "contains": "grant_type=refresh_token"},
}


async def test_a_user_of_user_management_goes_on_with_a_code(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    accepted = await factories.accepted(relay)
    await expire(relay)
    upstream.faults(LOST)
    calls = asked(upstream, api="user-management")

    [first] = await deliver(relay, accepted)
    [second] = await deliver(relay, accepted)

    assert (first.reason, second.state) == (Reason.NO_TOKEN, State.DELIVERED)
    assert asked(upstream, api="user-management") == calls + 1


async def test_a_user_whom_the_backend_brought_is_parked_and_the_state_says_why(
    relay: Relay, upstream: SandboxServer
) -> None:
    given = upstream.grant("alice")
    await relay.provisioner.bring_grant(
        "alice", TokenPair(given["access_token"], given["refresh_token"], 7200.0)
    )
    accepted = await factories.accepted(relay)
    await expire(relay)
    upstream.faults(LOST)

    [first] = await deliver(relay, accepted)
    [second] = await deliver(relay, accepted)

    assert (first.state, first.reason) == (State.QUEUED, Reason.NO_TOKEN)
    assert (second.state, second.reason) == (State.PARKED, Reason.NEEDS_AUTHORIZATION)
    assert asked(upstream, api="user-management") == 0
    async with relay.database.transaction() as connection:
        user = await users.find_user(connection, "alice")
    assert user is not None
    assert (user.grant_state, user.grant_origin) == ("needs_authorization", "backend")
