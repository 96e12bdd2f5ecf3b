"""What the doctor can be expected to say of a fault, and when."""

import pytest

from chaos.told import could_see
from uplift.settings import Settings


@pytest.mark.parametrize(
    ("parts", "waited", "expected"),
    [
        ({"postgres"}, 0.0, True),
        ({"redis"}, 0.0, True),
        ({"processes"}, 0.0, False),
        ({"processes"}, 3.5, False),
        ({"processes"}, 4.0, True),
        ({"processes", "redis"}, 0.0, True),
    ],
)
def test_what_processes_tell_is_expected_only_after_their_next_heartbeat(
    parts: set[str], waited: float, expected: bool
) -> None:
    assert could_see(parts, waited, Settings(max_silence_seconds=15)) is expected
