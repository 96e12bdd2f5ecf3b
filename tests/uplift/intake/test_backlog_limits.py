"""When too much of everybody, or of one user, waits."""

import pytest

from uplift.intake.backlog_limits import BacklogLimits
from uplift.ledger.backlog import Amount, Held, Load

_LIMITS = BacklogLimits(whole=Amount(100, 1000), user=Amount(10, 100))


@pytest.mark.parametrize(
    ("uploads", "body_bytes", "full"),
    [(0, 0, False), (99, 999, False), (100, 0, True), (1, 1000, True), (500, 5000, True)],
)
def test_the_whole_is_full_by_uploads_or_by_bytes(
    uploads: int, body_bytes: int, full: bool
) -> None:
    assert _LIMITS.is_full(Amount(uploads, body_bytes)) is full


@pytest.mark.parametrize(
    ("whole", "queued", "parked", "full"),
    [
        # While there is room, nobody is limited by what is on its way.
        (Amount(79, 799), Amount(70, 700), Amount(), False),
        (Amount(80, 0), Amount(9, 99), Amount(), False),
        (Amount(80, 0), Amount(10, 0), Amount(), True),
        (Amount(0, 800), Amount(0, 100), Amount(), True),
        (Amount(80, 0), Amount(5, 0), Amount(5, 0), True),
        # What is parked counts always, and alone.
        (Amount(), Amount(), Amount(9, 99), False),
        (Amount(), Amount(9, 0), Amount(9, 0), False),
        (Amount(), Amount(), Amount(10, 0), True),
        (Amount(), Amount(), Amount(1, 100), True),
    ],
)
def test_a_user_is_full_by_what_is_parked_and_near_the_limit_by_all(
    whole: Amount, queued: Amount, parked: Amount, full: bool
) -> None:
    held = Held(app_user_id="alice", queued=queued, parked=parked)
    assert (_LIMITS.full_users(Load(whole, (held,))) == {"alice"}) is full
