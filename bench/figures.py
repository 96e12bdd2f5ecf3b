"""What was measured and how it compares: medians, ratios, spreads of the rounds. Pure."""

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
    """The value that a figure should reach.

    `of`: the ratio or our own median is compared with it. `bound`: the figure should be no less
    than a minimum, or no more than a maximum.
    """

    value: float
    of: Literal["ratio", "ours"] = "ratio"
    bound: Literal["minimum", "maximum"] = "minimum"

    def reached(self, found: float) -> bool:
        """Whether `found` reaches this."""
        return found >= self.value if self.bound == "minimum" else found <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.bound == 'minimum' else '≤'} {self.value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Two things measured in turn in the same run, round by round. `ratio` is ours to theirs."""

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
        """Of the rounds' own ratios: a busy machine slows both sides of a round."""
        return Spread.of([a / b for a, b in zip(self.ours, self.theirs, strict=True)])

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None if there is none."""
        if self.target is None:
            return None
        found = self.ratio if self.target.of == "ratio" else Spread.of(self.ours)
        return self.target.reached(found.median)

    def to_json(self) -> dict[str, Any]:
        """The figure for the JSON of the results."""
        return {
            **asdict(self),
            "target": str(self.target) if self.target else None,
            "ours_median": Spread.of(self.ours).median,
            "theirs_median": Spread.of(self.theirs).median,
            "ratio": asdict(self.ratio),
            "reached": self.reached,
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value such that `percent` of the values are not greater (nearest rank).

    Raises ValueError if there is none.
    """
    if not values:
        raise ValueError("There are no values.")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]
