"""When a worker is alive, and when it only exists."""

import time

import pytest

from uplift.settings import Settings
from uplift.worker.bridge import Bridge
from uplift.worker.health import CONSUMER_SECONDS, Health, Signs

LONG_AGO = CONSUMER_SECONDS + 60


def check(
    *,
    loop: bool = True,
    redis: bool = True,
    consumer: float = 0.0,
    sweep: float = 0.0,
    pause: float | None = None,
) -> str | None:
    """The verdict, with how many seconds ago the parts showed themselves."""
    now = time.monotonic()
    signs = Signs(consumer=now - consumer, sweep=now - sweep)
    return Health(signs, lambda: loop, lambda: redis, pause).check()


@pytest.mark.parametrize(
    "well",
    [
        {},
        {"pause": 2.0},
        {"consumer": 30.0, "sweep": 30.0, "pause": 2.0},
        # It has no beat.
        {"sweep": LONG_AGO},
        # Sweeps are seldom by setting.
        {"sweep": LONG_AGO, "pause": 60.0},
        # Without Redis nobody brings messages, and a restart would not either.
        {"consumer": LONG_AGO, "redis": False},
        {"sweep": LONG_AGO, "pause": 2.0, "redis": False},
    ],
)
def test_alive(well: dict[str, float]) -> None:
    assert check(**well) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ill", "why"),
    [
        ({"loop": False}, "event loop"),
        ({"loop": False, "redis": False}, "event loop"),
        ({"consumer": LONG_AGO}, "Celery takes no messages"),
        ({"sweep": LONG_AGO, "pause": 2.0}, "beat or its sweeps"),
    ],
)
def test_not_alive(ill: dict[str, float], why: str) -> None:
    said = check(**ill)  # type: ignore[arg-type]
    assert said is not None
    assert why in said


def test_a_part_that_shows_itself_again_is_alive_again() -> None:
    signs = Signs(consumer=0.0, sweep=0.0)
    health = Health(signs, lambda: True, lambda: True, 2.0)
    signs.consumer = signs.sweep = time.monotonic() - LONG_AGO
    assert health.check() is not None
    signs.consumer_lives()
    assert "beat" in (health.check() or "")
    signs.swept()
    assert health.check() is None


def test_a_bridge_says_whether_its_loop_turns_and_redis_responds(settings: Settings) -> None:
    bridge = Bridge(settings)
    assert not bridge.redis_responds()
    bridge.open()
    assert bridge.loop_responds()
    assert bridge.redis_responds()
    hung = Health(Signs(), lambda: bridge.loop_responds(0.1), bridge.redis_responds, None)
    bridge._loop.call_soon_threadsafe(time.sleep, 0.4)
    assert hung.check() == "the event loop does not answer"
    assert Health(Signs(), bridge.loop_responds, bridge.redis_responds, None).check() is None
    bridge.close()
    assert not bridge.loop_responds()
