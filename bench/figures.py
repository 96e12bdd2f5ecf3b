"""What was measured and how it compares: medians, ratios, how far the rounds lay apart. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Spread:
    """A median of rounds, with the lowest and the highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> "Spread":
        """Raises StatisticsError if there is no round."""
        return cls(statistics.median(rounds), min(rounds), max(rounds))


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be. `of` is whether the ratio or our own median must reach it."""

    value: float
    of: Literal["ratio", "ours"] = "ratio"
    at: Literal["least", "most"] = "least"

    def reached(self, found: float) -> bool:
        """Whether `found` is no worse than this."""
        return found >= self.value if self.at == "least" else found <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at == 'least' else '≤'} {self.value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Two things measured in the same run, round by round in turn; `ratio` is ours to theirs."""

    section: str
    what: str
    unit: str
    against: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    target: Target | None = None
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> Spread:
        """The median of the rounds' own ratios: what slows a whole round weighs on both."""
        return Spread.of([a / b for a, b in zip(self.ours, self.theirs, strict=True)])

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None if there is none."""
        if self.target is None:
            return None
        found = self.ratio if self.target.of == "ratio" else Spread.of(self.ours)
        return self.target.reached(found.median)

    def to_json(self) -> dict[str, Any]:
        """As it is written to the results."""
        return {
            **asdict(self),
            "target": str(self.target) if self.target else None,
            "ours_median": Spread.of(self.ours).median,
            "theirs_median": Spread.of(self.theirs).median,
            "ratio": asdict(self.ratio),
            "reached": self.reached,
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed (nearest rank).

    Raises ValueError if there is none.
    """
    if not values:
        raise ValueError("There are no values.")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]
