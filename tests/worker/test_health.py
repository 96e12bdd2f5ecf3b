"""When a process is at work, and when it only exists."""

import time

import pytest

from uplift.admin_port import loop_responds
from uplift.settings import Settings
from uplift.worker.bridge import open_bridge
from uplift.worker.health import Heartbeat, failure, health_check, redis_responds


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("loop", "redis", "silent_seconds", "why"),
    [
        (True, True, 0.0, None),
        (True, True, 60.0, None),
        # Without Redis nobody brings messages, and a restart does not change that.
        (True, False, 61.0, None),
        (True, True, 61.0, "no sweep ends, although Redis responds"),
        (False, True, 0.0, "the event loop does not respond"),
        (False, False, 61.0, "the event loop does not respond"),
    ],
)
def test_what_keeps_a_process_from_its_work(
    clock: Clock, loop: bool, redis: bool, silent_seconds: float, why: str | None
) -> None:
    heartbeat = Heartbeat(60.0, clock)
    clock.now += silent_seconds
    said = failure(
        heartbeat, "no sweep ends", loop_responds=lambda: loop, redis_responds=lambda: redis
    )
    assert said == why


def test_a_part_that_beats_again_lives_again(clock: Clock) -> None:
    heartbeat = Heartbeat(60.0, clock)
    clock.now += 61.0
    assert heartbeat.missing
    heartbeat.beat()
    assert not heartbeat.missing


def test_a_process_says_whether_its_loop_and_redis_respond(settings: Settings) -> None:
    with open_bridge(settings) as bridge:
        check = health_check(bridge.relay, bridge.loop, Heartbeat(60.0), "no sweep ends")
        assert check() is None
        assert redis_responds(bridge.relay, bridge.loop)
        bridge.loop.call_soon_threadsafe(time.sleep, 0.09)
        assert not loop_responds(bridge.loop, 0.01)
        assert check() is None
    assert check() == "the event loop does not respond"
