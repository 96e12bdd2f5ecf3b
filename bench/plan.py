"""How long and how often a benchmark measures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """`rounds` of each side, in turn. `scale` multiplies backlogs and durations."""

    rounds: int = 3
    scale: float = 1.0

    def of(self, count: int) -> int:
        """`count`, scaled; never fewer than 50."""
        return max(50, round(count * self.scale))


FULL = Plan()
AGAINST = Plan(rounds=5)
QUICK = Plan(rounds=1, scale=0.2)
