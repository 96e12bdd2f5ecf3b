"""How long and how often is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """`rounds` of each thing, in turn; backlogs and durations are multiplied by `scale`."""

    rounds: int = 3
    scale: float = 1.0

    def of(self, count: int) -> int:
        """So many, scaled; never fewer than 50."""
        return max(50, round(count * self.scale))


FULL = Plan()
QUICK = Plan(rounds=1, scale=0.2)
