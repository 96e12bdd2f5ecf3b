"""Deliveries under the rate limiter, and of records that crash workers, against the sandbox."""

import asyncio
import time
from contextlib import AsyncExitStack
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest
import redis.asyncio
from pydantic import SecretStr
from sqlalchemy import text

from tests import factories
from tests.uplift.delivery.delivering import deliver_only
from tests.uplift.ledger import rows
from uplift.intake.accept import Accepted
from uplift.ledger import fair_queue
from uplift.lifecycle import ALONE_AFTER_CRASHES, REFUSED_AFTER_CRASHES_ALONE, Reason, State
from uplift.queues import UPLOADS
from uplift.redis_connection import redis_url
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.wiring import Relay, open_relay

_CREATE = {"api": "fhir", "method": "POST"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The usual settings, but with frequent sweeps and probes, and few sends at once."""
    return settings.model_copy(
        update={
            "probe_seconds": 0.3,
            "sweep_seconds": 0.1,
            "max_in_flight": 5,
        }
    )


async def accept(relay: Relay, count: int) -> list[Accepted]:
    await factories.user(relay)
    return [
        await factories.accepted(relay, id=f"obs-{n}", valueQuantity={"value": n})
        for n in range(count)
    ]


async def work(relay: Relay, until: float) -> None:
    """Sweep, and deliver what is dispatched, as the processes do, until then on time.monotonic."""
    async with (
        redis.asyncio.from_url(redis_url(relay.settings)) as client,
        asyncio.TaskGroup() as tasks,
    ):
        while time.monotonic() < until:
            await relay.sweeper.sweep()
            await asyncio.sleep(0.05)
            if await client.delete(UPLOADS):
                tasks.create_task(relay.deliverer.deliver(UPLOADS))


async def states(relay: Relay, accepted: list[Accepted]) -> list[State]:
    return [(await factories.status(relay, each)).state for each in accepted]


async def ready(relay: Relay, accepted: list[Accepted]) -> None:
    """Let those be claimed of these that are due."""
    async with relay.database.transaction() as connection:
        await fair_queue.tag(connection, [each.upload.id for each in accepted])


async def attempts(relay: Relay, accepted: list[Accepted]) -> list[int]:
    return [(await factories.status(relay, each)).attempts for each in accepted]


def sent(upstream: SandboxServer, after: int = 0) -> list[dict[str, Any]]:
    return upstream.requests(api="fhir")[after:]


async def test_an_outage_costs_only_probes_of_different_uploads_and_then_all_are_delivered(
    relay: Relay, upstream: SandboxServer
) -> None:
    uploads = await accept(relay, 18)
    upstream.faults({"kind": "status", "status": 503, "match": {"api": "fhir"}})
    await relay.deliverer.deliver(UPLOADS)
    at_first = await attempts(relay, uploads)
    # Ten failures make an outage, and up to five attempts are in flight then.
    assert 10 <= sum(at_first) <= 15
    assert len(sent(upstream)) == sum(at_first)

    started = time.monotonic()
    async with asyncio.timeout(30):
        while len(sent(upstream)) < sum(at_first) + 3:
            await work(relay, time.monotonic() + 0.3)
    probes = sent(upstream, after=sum(at_first))
    assert len(probes) <= (time.monotonic() - started) / 0.3 + 1
    assert sum(await attempts(relay, uploads)) == sum(at_first) + len(probes)
    assert len({(each["method"], each["sha256"], each["path"]) for each in probes}) == len(probes)

    # One record still fails: it must not delay the others.
    upstream.clear_faults()
    upstream.faults({"kind": "status", "status": 500, "match": {"id": "obs-0"}})
    async with asyncio.timeout(20):
        while set(await states(relay, uploads[1:])) != {State.DELIVERED}:
            await work(relay, time.monotonic() + 0.3)
    assert (await factories.status(relay, uploads[0])).state is not State.DELIVERED
    total = upstream.counts()["total"]
    assert (total["resources"], total["duplicates"]) == (17, 0)


async def test_one_record_that_always_fails_slows_no_other(
    relay: Relay, upstream: SandboxServer
) -> None:
    uploads = await accept(relay, 8)
    upstream.faults({"kind": "status", "status": 500, "match": {"id": "obs-0"}})
    for _ in range(12):
        async with relay.database.transaction() as connection:
            await connection.execute(
                text("UPDATE uploads SET next_attempt_at = now() WHERE state = 'queued'")
            )
        await deliver_only(relay, uploads[0].upload.id)
    await deliver_only(relay, *(each.upload.id for each in uploads))
    assert set(await states(relay, uploads[1:])) == {State.DELIVERED}
    rate_limiter = await relay.rate_limiters["oneup"].state()
    assert rate_limiter is not None
    assert rate_limiter.phase == "full"


async def test_a_retry_after_suspends_every_process_and_costs_the_others_no_attempt(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    uploads = await accept(relay, 6)
    upstream.faults({"kind": "too_many_requests", "retry_after": 60, "count": 1})
    await deliver_only(relay, uploads[0].upload.id)
    await ready(relay, uploads)
    async with open_relay(settings) as other:
        await relay.rate_limiters["oneup"].state()  # reports the 429 now instead of a moment later
        started = time.monotonic()
        assert not await other.deliverer.deliver(UPLOADS)
        assert time.monotonic() - started < 1  # no thread waits for it
        assert (await other.sweeper.sweep()).dispatched == 0
    assert len(sent(upstream)) == 1
    assert await attempts(relay, uploads) == [1, 0, 0, 0, 0, 0]
    assert set(await states(relay, uploads)) == {State.QUEUED}


async def test_a_message_waits_a_moment_for_its_permits(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    uploads = await accept(relay, 6)
    async with open_relay(settings.model_copy(update={"max_attempts_per_second": 20.0})) as slow:
        started = time.monotonic()
        await slow.deliverer.deliver(UPLOADS)
        assert time.monotonic() - started > 0.15
    assert set(await states(relay, uploads)) == {State.DELIVERED}


async def test_uploads_that_are_not_due_any_more_use_up_no_scarce_permit(
    relay: Relay, settings: Settings, upstream: SandboxServer
) -> None:
    await accept(relay, 30)
    async with relay.database.transaction() as connection:
        await connection.execute(
            text(
                "UPDATE uploads SET next_attempt_at = now() + interval '1 hour'"
                " WHERE state = 'queued'"
            )
        )
    late = await factories.accepted(relay, id="late")
    async with redis.asyncio.from_url(redis_url(settings)) as client:
        now = (await client.time())[0] * 1000
        slow = {
            "limit": 0.8,
            "slow_start_threshold": 0.8,
            "raised": now + 60_000,
            "tokens": 1,
            "at": now,
        }
        for name, value in slow.items():
            await client.hset("uplift:rate_limiter:oneup", name, str(value))
    await relay.rate_limiters["oneup"].state()
    # The next permit comes after more than a second, and no message waits so long.
    await relay.deliverer.deliver(UPLOADS)
    assert await states(relay, [late]) == [State.DELIVERED]


async def test_while_redis_is_away_deliveries_go_on_slowly(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    uploads = await accept(relay, 6)
    nowhere = settings.model_copy(
        update={
            "redis_url": SecretStr("redis://127.0.0.1:1/0"),
            "local_attempts_per_second": 5.0,
        }
    )
    async with open_relay(nowhere) as alone:
        await alone.deliverer.deliver(UPLOADS)
    assert set(await states(relay, uploads)) == {State.DELIVERED}


# --- records that crash workers ------------------------------------------------------------------


async def _times(relay: Relay, upload_id: UUID) -> list[tuple[float, float]]:
    return [
        (each.opened_at.timestamp(), each.closed_at.timestamp())
        for each in await rows.attempts_of(relay.database, upload_id)
    ]


async def test_an_upload_whose_leases_ran_out_twice_is_attempted_while_nothing_else_is(
    relay: Relay, upstream: SandboxServer
) -> None:
    uploads = await accept(relay, 12)
    suspects = [uploads[n].upload.id for n in (0, 3)]
    async with relay.database.transaction() as connection:
        await connection.execute(
            text("UPDATE uploads SET crashes = :n WHERE id = ANY(:ids)"),
            {"n": ALONE_AFTER_CRASHES, "ids": suspects},
        )
    upstream.faults({"kind": "slow", "seconds": 0.1, "match": _CREATE})
    ids = [each.upload.id for each in uploads]
    await asyncio.gather(relay.deliverer.deliver(UPLOADS), relay.deliverer.deliver(UPLOADS))
    assert set(await states(relay, uploads)) == {State.DELIVERED}
    times = {id_: (await _times(relay, id_))[0] for id_ in ids}
    for suspect in suspects:
        opened, closed = times.pop(suspect)
        assert all(end < opened or begin > closed for begin, end in times.values())
        times[suspect] = (opened, closed)
    others = [times[id_] for id_ in ids if id_ not in suspects]
    assert any(a[0] < b[1] and b[0] < a[1] for a, b in combinations(others, 2))


async def test_a_record_that_crashes_each_worker_is_refused_and_harms_no_other(
    settings: Settings, relay: Relay, upstream: SandboxServer
) -> None:
    uploads = await accept(relay, 5)
    poison, companions = uploads[0], uploads[1:]
    upstream.faults(
        {"kind": "stall", "seconds": 3, "match": {**_CREATE, "id": "obs-0"}},
        {"kind": "slow", "seconds": 0.5, "commit_first": True, "match": _CREATE},
    )
    together: list[int] = []
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as workers:
        refused = 0
        while not refused:
            worker = await stack.enter_async_context(open_relay(settings))
            workers.create_task(worker.deliverer.deliver(UPLOADS))
            async with asyncio.timeout(20):
                while State.SENDING not in await states(relay, [poison]):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            together.append((await states(relay, uploads)).count(State.SENDING))
            # Its supervisor says that the worker is gone.
            await rows.end_process(relay.database, worker.heartbeats.process_id)
            refused = (await relay.sweeper.sweep()).refused
            await asyncio.sleep(0.3)  # the settle time passes
            async with relay.database.transaction() as connection:
                await connection.execute(
                    text("UPDATE uploads SET next_attempt_at = now() WHERE state = 'queued'")
                )
            await ready(relay, uploads)

    row = await factories.status(relay, poison)
    assert (row.state, row.reason) == (State.REFUSED, Reason.CRASHES_WORKER)
    assert (row.attempts, row.maybe_sent) == (len(together), True)
    assert (await rows.row(relay.database, poison.upload.id)).sealed_body is not None
    assert together[0] == len(uploads)
    assert set(together[ALONE_AFTER_CRASHES:]) == {1}
    crashes = (await rows.row(relay.database, poison.upload.id)).crashes_alone
    assert crashes == REFUSED_AFTER_CRASHES_ALONE
    # They were attempted together with it at first, and never once it was suspected.
    await deliver_only(relay, *(each.upload.id for each in companions))
    assert set(await states(relay, companions)) == {State.DELIVERED}
    total = upstream.counts()["total"]
    assert (total["versions"], total["duplicates"]) == (len(companions), 0)
