"""When too much waits to be sent: of everybody, and of one user. Pure.

Below a part of the whole's limits nobody is limited by what they have queued, since it is in
nobody's way. What is parked waits for one person's consent. It counts against that person's limit
always, and against the whole's never.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from uplift.ledger.backlog import Amount, Held, Load

_NEAR_PART = 0.8


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """How much may wait, of everybody and of one user."""

    whole: Amount
    user: Amount

    def is_full(self, queued: Amount) -> bool:
        """Whether nothing more is accepted of anybody."""
        return _reaches(queued, self.whole)

    def full_users(self, load: Load) -> frozenset[str]:
        """The names of those of whom nothing more is accepted."""
        near = _reaches(load.queued, self.whole, _NEAR_PART)
        return frozenset(self._full(load.users, near=near))

    def _full(self, users: Iterable[Held], *, near: bool) -> Iterable[str]:
        for user in users:
            both = Amount(
                user.queued.uploads + user.parked.uploads,
                user.queued.body_bytes + user.parked.body_bytes,
            )
            if _reaches(both if near else user.parked, self.user):
                yield user.app_user_id


def _reaches(amount: Amount, limit: Amount, part: float = 1.0) -> bool:
    return amount.uploads >= part * limit.uploads or amount.body_bytes >= part * limit.body_bytes
