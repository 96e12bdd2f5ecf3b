"""What is measured of the ledger and of Redis, and what is absent while it cannot be measured."""

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from tests import factories
from uplift.ledger.database import Database
from uplift.lifecycle import Reason, State
from uplift.metrics import ledger_gauges
from uplift.redis_connection import open_redis
from uplift.settings import Settings
from uplift.tokens.quota import Quota
from uplift.wiring import Relay, open_relay

NOWHERE = "redis://127.0.0.1:1/0"


def shown() -> dict[str, dict[tuple[str, ...], float]]:
    """The measured values by name and labels."""
    registry = CollectorRegistry()
    registry.register(ledger_gauges)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in registry.collect():
        found[family.name] = {
            tuple(sample.labels.values()): sample.value for sample in family.samples
        }
    return found


async def test_the_backlog_the_queues_and_the_quota_are_measured(relay: Relay) -> None:
    await factories.user_without_grant(relay)
    await factories.accepted(relay)
    await relay.sweeper.sweep()
    pause = await relay.measurer.measure()
    assert 15 <= pause <= 60
    found = shown()
    assert found.keys() == ledger_gauges.NAMES.keys()
    assert found["uplift_uploads_unfinished"] == {("uploads", State.QUEUED, Reason.NEW): 1}
    assert found["uplift_uploads_due"] == {("uploads",): 1, ("bulk",): 0}
    assert found["uplift_due_oldest_seconds"]["bulk",] == 0
    assert 0 <= found["uplift_due_oldest_seconds"]["uploads",] < 60
    assert found["uplift_redis_up"] == {(): 1}
    assert found["uplift_queue_messages"].keys() == {("uploads",), ("bulk",)}
    settings = relay.settings
    assert found["uplift_quota_calls_left"] == {
        ("all",): settings.oneup_quota_calls,
        ("known",): settings.oneup_quota_calls - settings.oneup_quota_reserve,
    }
    assert found["uplift_pauses"] == {("all",): 0, ("user",): 0}
    assert found["uplift_sweep_ended_timestamp_seconds"][()] > 0


async def test_calls_that_were_made_are_no_longer_left(relay: Relay, settings: Settings) -> None:
    async with open_redis(settings) as client:
        quota = Quota(client, settings)
        for _ in range(3):
            async with quota.call(new_user=True):
                pass
        await relay.measurer.measure()
        left = settings.oneup_quota_calls - 3
        assert shown()["uplift_quota_calls_left"] == {
            ("all",): left,
            ("known",): left - settings.oneup_quota_reserve,
        }
        await quota.used_up(60)
        await relay.measurer.measure()
        assert shown()["uplift_quota_calls_left"] == {("all",): 0, ("known",): 0}


async def test_without_redis_the_ledger_is_still_measured(
    settings: Settings, database: Database
) -> None:
    away = settings.model_copy(update={"redis_url": SecretStr(NOWHERE)})
    async with open_relay(away) as relay:
        await relay.measurer.measure()
    found = shown()
    assert found["uplift_redis_up"] == {(): 0}
    assert found["uplift_queue_messages"] == found["uplift_quota_calls_left"] == {}
    assert found["uplift_uploads_due"] == {("uploads",): 0, ("bulk",): 0}


async def test_without_the_ledger_its_numbers_are_absent_and_redis_is_still_measured(
    settings: Settings,
) -> None:
    nowhere = SecretStr("postgresql://uplift@127.0.0.1:1/uplift")
    async with open_relay(settings.model_copy(update={"database_url": nowhere})) as relay:
        await relay.measurer.measure()
    found = shown()
    assert "uplift_uploads_due" not in found
    assert found["uplift_redis_up"] == {(): 1}
    assert found["uplift_sweep_ended_timestamp_seconds"] == {}
