"""Whether a tree is slower than a commit, by the rounds of one run. Pure.

In each round the commit is measured twice, the tree once. A ratio says how fast a side is, compared
with the commit's first measurement of the round: above 1 is faster. Of latencies it is therefore
the commit's divided by the side's; of rates it is the side's divided by the commit's.

Noise is the spread of the commit against itself: the lowest to the highest ratio of its second
measurement. The tree is not slower if its median ratio is at least 0.97, or within the noise.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.figures import Spread

TOLERATED = 0.97


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One figure of the commit (`before`, and `again`) and of the tree (`now`), round by round."""

    section: str
    what: str
    unit: str
    less_is_faster: bool = False
    before: tuple[float, ...]
    now: tuple[float, ...]
    again: tuple[float, ...]

    @property
    def ratio(self) -> Spread:
        """How fast the tree is, compared with the commit."""
        return Spread.of(self._ratios(self.now))

    @property
    def noise(self) -> Spread:
        """How fast the commit is, compared with itself."""
        return Spread.of(self._ratios(self.again))

    @property
    def not_slower(self) -> bool:
        """Whether the tree passes."""
        return self.ratio.median >= min(TOLERATED, self.noise.low)

    @property
    def verdict(self) -> str:
        """Whether the tree is slower, and by which rule."""
        ratio, noise = f"{self.ratio.median:.2f}", f"{self.noise.low:.2f} to {self.noise.high:.2f}"
        if self.ratio.median >= TOLERATED:
            return f"not slower: {ratio} is at least {TOLERATED:g}"
        if self.not_slower:
            return f"not slower: {ratio} is within the noise of {noise}"
        return f"SLOWER: {ratio} is below {TOLERATED:g} and below the noise of {noise}"

    def to_json(self) -> dict[str, Any]:
        """The comparison for the JSON of the results."""
        return {
            **asdict(self),
            "ratio": asdict(self.ratio),
            "noise": asdict(self.noise),
            "not_slower": self.not_slower,
            "verdict": self.verdict,
        }

    def _ratios(self, side: Sequence[float]) -> list[float]:
        pairs = zip(self.before, side, strict=True)
        if self.less_is_faster:
            return [before / value for before, value in pairs]
        return [value / before for before, value in pairs]


def conclusion(comparisons: Sequence[Comparison]) -> str:
    """The verdict on all figures, in one sentence."""
    slower = [f"{each.section}: {each.what}" for each in comparisons if not each.not_slower]
    if not slower:
        return f"Not slower in any of {len(comparisons)} figures."
    return f"SLOWER in {len(slower)} of {len(comparisons)} figures: {'; '.join(slower)}."
