"""Of a person who is erased upstream, their destinations show nothing, whatever was under way."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from tests import factories
from tests.uplift.delivery.at_hapi import (
    delete_at,
    ended,
    push,
    put_at,
    relay_of,
    stored,
    there,
)
from tests.uplift.delivery.delivering import deliver, until
from tests.uplift.ledger import rows
from tests.uplift.users.test_erase import nothing_is_left
from uplift.errors import Conflict, NotFound
from uplift.ledger import leases
from uplift.ledger.database import Database
from uplift.ledger.token_pair import TokenPair
from uplift.lifecycle import State
from uplift.problem_types import ProblemType
from uplift.queues import UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.settings import Settings
from uplift.users.erase import Erasure, Upstream
from uplift.wiring import Relay, open_relay

pytestmark = pytest.mark.usefixtures("database")

_DELETE = {"api": "fhir", "method": "DELETE"}


@pytest.fixture
async def at(database: Database, at_hapi: Settings) -> AsyncIterator[Relay]:
    """A relay to a server like HAPI."""
    async with relay_of(at_hapi) as opened:
        yield opened


async def begin(relay: Relay, upstream: Upstream | None = Upstream.DELETE) -> Erasure:
    return await relay.eraser.erase("alice", wait=0, upstream=upstream)


async def go_on(relay: Relay, seconds: float = 20.0) -> None:
    """Until the person is erased here too, as beat does it."""
    async with asyncio.timeout(seconds):
        while True:
            await relay.deliverer.deliver(UPLOADS)
            await relay.sweeper.sweep()
            if await relay.upstream_eraser.go_on():
                break
            await asyncio.sleep(0.1)
    await relay.eraser.finish()
    assert await nothing_is_left(relay.database)


async def test_everything_of_theirs_is_deleted_and_then_they_are_erased(
    at: Relay, hapi: SandboxServer
) -> None:
    await push(at)
    assert len(there(hapi)) == 5
    erasure = await begin(at)
    assert (erasure.done, erasure.upstream) == (False, Upstream.DELETE)
    assert erasure.left_upstream == 6  # the Patient at each base
    (history,) = erasure.history
    assert "$expunge" in history
    await go_on(at)
    assert there(hapi) == {}
    with pytest.raises(NotFound):
        await begin(at)


async def test_each_is_read_once_more_after_the_time_to_settle(
    at: Relay, hapi: SandboxServer
) -> None:
    await push(at)
    await begin(at)
    await go_on(at)
    asked = [(each["method"], each["path"]) for each in hapi.requests()]
    deleted = {path for method, path in asked if method == "DELETE"}
    assert len(deleted) == 6
    for path in deleted:
        last = [method for method, other in asked if other == path][-1]
        assert last == "GET"


async def test_one_round_goes_on_while_the_rate_limiter_gives_one_permit_after_the_other(
    database: Database, at_hapi: Settings, hapi: SandboxServer
) -> None:
    slow = at_hapi.model_copy(update={"destination_max_attempts_per_second": 10.0})
    async with relay_of(slow) as relay:
        await ended(relay, await factories.accepted(relay, id="obs-1"))
        await begin(relay)
        await asyncio.sleep(0.3)  # the time to settle
        await relay.upstream_eraser.go_on()
    deleted = [each["path"] for each in hapi.requests() if each["method"] == "DELETE"]
    assert len(deleted) == 3  # the Patient at each base


async def test_two_that_refer_to_each_other_do_not_keep_each_other(
    at: Relay, hapi: SandboxServer
) -> None:
    await push(at)
    first, second, _ = stored(hapi)
    put_at(hapi, {**first, "hasMember": [{"reference": f"Observation/{second['id']}"}]})
    put_at(hapi, {**second, "hasMember": [{"reference": f"Observation/{first['id']}"}]})
    await begin(at)
    await go_on(at)
    assert there(hapi) == {}


async def test_what_a_clock_a_day_ahead_has_stamped_keeps_nobody_for_a_day(
    at: Relay, hapi: SandboxServer, database: Database
) -> None:
    await push(at)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE uploads SET updated_at = now() + interval '1 day'"))
    await begin(at)
    await go_on(at)
    assert there(hapi) == {}


async def test_added_again_and_pushed_everything_is_there_once(
    at: Relay, hapi: SandboxServer
) -> None:
    await push(at)
    before = there(hapi).keys()
    await begin(at)
    await go_on(at)
    await at.provisioner.provision("alice")
    await push(at)
    assert there(hapi).keys() == before


async def test_meanwhile_nothing_of_theirs_is_taken_and_nothing_waiting_is_sent(
    at: Relay, hapi: SandboxServer
) -> None:
    waiting = await factories.accepted(at, id="waits")
    await begin(at)
    for refused in (
        lambda: factories.accepted(at, id="another"),
        lambda: at.provisioner.provision("alice"),
        lambda: at.mover.resend("alice"),
        lambda: at.pauser.pause("alice"),
    ):
        with pytest.raises(Conflict) as caught:
            await refused()
        assert caught.value.problem is ProblemType.BEING_ERASED
    await at.deliverer.deliver(UPLOADS)
    assert (await factories.status(at, waiting)).state is State.QUEUED
    await go_on(at)
    assert there(hapi) == {}


async def test_what_was_in_flight_is_deleted_too(at: Relay, hapi: SandboxServer) -> None:
    await push(at)
    hapi.faults(
        {"kind": "slow", "seconds": 0.6, "match": {"api": "fhir", "method": "PUT"}},
    )
    late = await factories.accepted(at, id="late")
    sending = asyncio.create_task(deliver(at, late))
    await until(lambda: any(rule["fired"] for rule in hapi.fault_rules()))
    erasure = await begin(at)
    assert erasure.sending == 1
    hapi.clear_faults()
    await sending
    await go_on(at)
    assert there(hapi) == {}


async def test_a_claim_that_was_on_its_way_does_not_escape(at: Relay, hapi: SandboxServer) -> None:
    late = await factories.accepted(at, id="late")
    async with at.database.transaction() as connection:
        claims = await leases.claim(
            connection, [late.upload.id], **rows.terms(lease_seconds=60.0, give_up_seconds=60)
        )
        assert claims
        await begin(at)
        # Not committed yet: it is waited for, and not passed over.
        going_on = asyncio.create_task(at.upstream_eraser.go_on())
        await asyncio.sleep(0.5)
    assert not await going_on
    progress = await at.eraser.progress("alice")
    assert progress is not None
    assert progress.sending == 1


async def test_a_write_that_arrives_after_the_deletion_is_found_and_deleted(
    at: Relay, hapi: SandboxServer
) -> None:
    await push(at)
    (first, *_) = stored(hapi)
    await begin(at)
    fired = False
    async with asyncio.timeout(20):
        while not await at.upstream_eraser.go_on():
            deleted = any(each["method"] == "DELETE" for each in hapi.requests())
            if deleted and not fired:
                fired = True
                lone = {key: value for key, value in first.items() if key != "subject"}
                put_at(hapi, lone)
            await asyncio.sleep(0.05)
    assert there(hapi) == {}


async def test_a_claim_of_a_killed_process_is_taken_by_another(
    at: Relay, hapi: SandboxServer
) -> None:
    await push(at)
    await begin(at)
    await asyncio.sleep(0.3)  # the time to settle
    hapi.faults({"kind": "stall", "seconds": 20, "match": _DELETE, "count": 3})
    killed = asyncio.create_task(at.upstream_eraser.go_on())
    await until(lambda: any(rule["fired"] for rule in hapi.fault_rules()))
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    hapi.clear_faults()
    async with at.database.transaction() as connection:
        later = "UPDATE upstream_deletions SET due_at = due_at - interval '10 seconds'"
        await connection.execute(text(later))
    await go_on(at)
    assert there(hapi) == {}


async def test_what_the_server_does_not_delete_is_told_and_tried_again(
    at: Relay, hapi: SandboxServer
) -> None:
    await push(at)
    hapi.faults({"kind": "status", "status": 403, "match": {**_DELETE, "type": "Observation"}})
    await begin(at)
    await until(lambda: told_by(at, "http_403"))
    progress = await at.eraser.progress("alice")
    assert progress is not None
    assert progress.left >= 4  # three and the Patient
    assert any(name.startswith("Patient/") for name in there(hapi)), "the Patient goes last"
    hapi.clear_faults()
    await go_on(at)
    assert there(hapi) == {}


async def told_by(relay: Relay, code: str) -> bool:
    await relay.upstream_eraser.go_on()
    progress = await relay.eraser.progress("alice")
    return progress is not None and progress.problem == code


async def test_a_patient_that_somebody_elses_record_refers_to_is_told_and_goes_after_it(
    at: Relay, hapi: SandboxServer
) -> None:
    await push(at)
    (person,) = (each["id"] for each in stored(hapi, "Patient"))
    put_at(hapi, factories.resource(id="others-1", subject={"reference": f"Patient/{person}"}))
    await begin(at)
    others = {f"Patient/{person}", "Observation/others-1"}

    async def is_left_alone() -> bool:  # a record that a report refers to tells the same before
        return await told_by(at, "http_409") and there(hapi).keys() == others

    await until(is_left_alone)
    await asyncio.sleep(0.3)
    await at.upstream_eraser.go_on()
    assert (await begin(at)).left_upstream == 1
    delete_at(hapi, "others-1")
    await go_on(at)
    assert there(hapi) == {}


async def test_after_so_many_days_they_are_erased_here_whatever_is_left(
    at: Relay, hapi: SandboxServer
) -> None:
    await push(at)
    hapi.faults({"kind": "status", "status": 403, "match": _DELETE})
    await begin(at)
    await until(lambda: told_by(at, "http_403"))
    async with at.database.transaction() as connection:
        earlier = "UPDATE users SET erasing_upstream_since = now() - interval '31 days'"
        await connection.execute(text(earlier))
    await go_on(at)
    assert len(there(hapi)) == 5


async def test_what_is_left_is_told_until_the_last_row_is_gone(
    at: Relay, hapi: SandboxServer
) -> None:
    await ended(at, await factories.accepted(at, id="obs-1"))
    hapi.faults({"kind": "status", "status": 403, "match": _DELETE})
    await begin(at)
    async with at.database.transaction() as connection:
        earlier = "UPDATE users SET erasing_upstream_since = now() - interval '31 days'"
        await connection.execute(text(earlier))
    assert await at.upstream_eraser.go_on()
    erasure = await at.eraser.erase("alice", wait=10)
    assert (erasure.done, erasure.upstream) == (True, Upstream.DELETE)
    assert erasure.left_upstream == 3


async def test_keep_ends_what_was_being_deleted(at: Relay, hapi: SandboxServer) -> None:
    await push(at)
    await begin(at)
    assert (await begin(at, None)).upstream is Upstream.DELETE, "a repeated request goes on"
    erasure = await at.eraser.erase("alice", wait=10, upstream=Upstream.KEEP)
    assert (erasure.done, erasure.left_upstream) == (True, 6)
    assert await nothing_is_left(at.database)
    assert len(there(hapi)) == 5


async def test_what_was_moved_away_from_is_deleted_there_too(
    database: Database, settings: Settings, hapi: SandboxServer, upstream: SandboxServer
) -> None:
    both = {"destination_r4": f"{hapi.url}/r4", "destination": "oneup"}
    file = settings.data_dir / "destinations.toml"
    file.write_text(f'[oneup]\n[hapi]\nr4 = "{hapi.url}/r4"\n')
    chosen = settings.model_copy(update={**both, "destinations_file": file})
    async with relay_of(chosen) as relay:
        await deliver(relay, await factories.accepted(relay, id="obs-1"))
        await relay.mover.move("alice", "hapi")
        await ended(relay, await factories.accepted(relay, id="obs-1"))
        assert upstream.counts()["total"]["resources"] == 1
        assert len(there(hapi)) == 2
        await begin(relay)
        await go_on(relay)
    assert there(hapi) == {}
    assert at_oneup(upstream) == []


async def test_a_destination_that_left_the_settings_is_told_and_waited_for(
    database: Database, settings: Settings, hapi: SandboxServer
) -> None:
    here = f'[hapi]\nr4 = "{hapi.url}/r4"\n'
    other = f'[other]\npreset = "hapi"\nr4 = "{hapi.url}/dstu2"\n'  # it has another Patient
    file = settings.data_dir / "destinations.toml"
    chosen = settings.model_copy(update={"destination": "other", "destinations_file": file})
    file.write_text(here + other)
    async with relay_of(chosen) as relay:
        await relay.mover.move("alice", "hapi")
        await ended(relay, await factories.accepted(relay, id="obs-1"))
        await relay.mover.move("alice", "other")
    file.write_text(other)
    async with open_relay(chosen) as relay:
        await begin(relay)
        await until(lambda: told_by(relay, "destination_unusable"))
        assert len(there(hapi)) == 2
    file.write_text(here + other)
    async with open_relay(chosen) as relay:
        await go_on(relay)
    assert there(hapi) == {}


def at_oneup(upstream: SandboxServer) -> list[str]:
    """What is at the sandbox and not deleted."""
    kept = upstream.resources()
    return [each["id"] for each in kept if each["versions"][-1]["interaction"] != "delete"]


async def test_at_oneup_what_may_have_arrived_is_looked_up_and_deleted(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    await deliver(relay, await factories.accepted(relay, id="obs-1"))
    upstream.faults({"kind": "cut", "commit": True, "match": {"api": "fhir", "method": "POST"}})
    unknown = await factories.accepted(relay, id="obs-2")
    assert (await deliver(relay, unknown)).maybe_sent
    upstream.clear_faults()
    assert len(at_oneup(upstream)) == 2
    await begin(relay)
    await go_on(relay)
    assert at_oneup(upstream) == []


async def test_at_oneup_without_consent_it_waits_for_a_new_grant(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    await deliver(relay, await factories.accepted(relay, id="obs-1"))
    upstream.faults({"kind": "end_consent"})
    await begin(relay)
    await until(lambda: told_by(relay, "needs_authorization"))
    upstream.clear_faults()
    given = upstream.grant("alice")
    tokens = TokenPair(given["access_token"], given["refresh_token"], 7200.0)
    await relay.provisioner.bring_grant("alice", tokens)
    await go_on(relay)
    assert at_oneup(upstream) == []


async def test_while_everybody_is_paused_nothing_is_deleted(at: Relay, hapi: SandboxServer) -> None:
    await push(at)
    await at.pauser.pause(None)
    await begin(at)
    for _ in range(3):
        assert not await at.upstream_eraser.go_on()
    assert len(there(hapi)) == 5
    await at.pauser.resume(None)
    await go_on(at)


async def test_what_was_thinned_is_deleted_by_its_delivery(at: Relay, hapi: SandboxServer) -> None:
    await push(at)
    async with at.database.transaction() as connection:
        await connection.execute(text("DELETE FROM uploads"))
    await begin(at)
    await go_on(at)
    assert there(hapi) == {}
