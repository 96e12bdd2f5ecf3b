"""How long the next part of a body may take: a body has a least rate. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeastRate:
    """No pause is longer than `idle_seconds`; beyond that time, `bytes_per_second` come on average.

    Only the time counts in which the API waits for the sender.
    """

    idle_seconds: float
    bytes_per_second: int

    def seconds_left(self, arrived: int, waited: float) -> float:
        """How long the next part may take, after so many bytes and seconds; 0 if it is too late."""
        earned = self.idle_seconds + arrived / self.bytes_per_second
        return max(0.0, min(self.idle_seconds, earned - waited))
