"""When a process is at work, and when it only exists."""

import threading
import time

import pytest

from uplift.admin_port import loop_responds
from uplift.settings import Settings
from uplift.worker.bridge import open_bridge
from uplift.worker.health import (
    MAX_FAILURES,
    Heartbeat,
    ended_when_failing,
    failure,
    health_check,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("loop", "silent_seconds", "why"),
    [
        (True, 0.0, None),
        (True, 60.0, None),
        (True, 61.0, "no sweep ends"),
        (False, 0.0, "the event loop does not respond"),
        (False, 61.0, "the event loop does not respond"),
    ],
)
def test_what_keeps_a_process_from_its_work(
    clock: Clock, loop: bool, silent_seconds: float, why: str | None
) -> None:
    heartbeat = Heartbeat(60.0, clock)
    clock.now += silent_seconds
    assert failure(heartbeat, "no sweep ends", loop_responds=lambda: loop) == why


def test_a_part_that_beats_again_lives_again(clock: Clock) -> None:
    heartbeat = Heartbeat(60.0, clock)
    clock.now += 61.0
    assert heartbeat.missing
    heartbeat.beat()
    assert not heartbeat.missing


def test_a_process_says_whether_its_loop_responds(settings: Settings) -> None:
    with open_bridge(settings) as bridge:
        check = health_check(bridge.loop, Heartbeat(60.0), "no sweep ends")
        assert check() is None
        bridge.loop.call_soon_threadsafe(time.sleep, 0.09)
        assert not loop_responds(bridge.loop, 0.01)
        assert check() is None
    assert check() == "the event loop does not respond"


def test_a_process_that_stands_still_ends_after_some_failures_in_a_row() -> None:
    answers = iter(["no sweep ends", None, *["no sweep ends"] * MAX_FAILURES])
    ended = threading.Event()
    with ended_when_failing(lambda: next(answers), pause_seconds=0.001, end=ended.set):
        assert ended.wait(10)
    assert list(answers) == []
