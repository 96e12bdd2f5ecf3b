"""The options of a chaos run: how many uploads, how many faults, which seed, which time limits."""

from dataclasses import dataclass
from typing import Literal

from uplift.cli.local.system import Like

Ids = Literal["kept", "assigned"]
Bundle = Literal["none", "transaction", "batch"]


@dataclass(frozen=True, slots=True)
class Options:
    """One chaos run. Times are in seconds.

    `like`: the destination is a simulated 1upHealth, or a server of another kind, where Uplift puts
    records to ids of its own; at HAPI several in a `bundle`. `beyond`: it finishes later than
    `settle` and indexes later than `index_lag`. Then copies are allowed at 1upHealth, but each must
    be marked as a possible duplicate; at HAPI older content may win, but its record must say so.
    `heavy`: one person has nine tenths of all uploads, and sends them in the first fifth of the
    run. `restores`: the ledger goes back in time twice; `late_users` people come after the backup.
    An upload that has not changed for `patience` is stuck; `patience` is longer than every time
    limit here. The run waits no longer than `give_up_waiting` for the last upload.
    """

    uploads: int = 10_000
    kills: int = 54
    seed: int = 1
    ids: Ids = "kept"
    like: Like = "oneup"
    bundle: Bundle = "transaction"
    beyond: bool = False
    heavy: bool = False
    kill_every: float = 4.0
    users: int = 10
    devices: int = 60
    late_users: int = 2
    second_processes: bool = True
    restores: bool = True
    attempt: float = 4.0
    lease: float = 8.0
    silence: float = 5.0
    settle: float = 4.0
    index_lag: float = 3.0
    patience: float = 60.0
    give_up_waiting: float = 1800.0

    @property
    def has_bundles(self) -> bool:
        """Whether several records go with one request."""
        return self.like == "hapi" and self.bundle != "none"

    @property
    def people(self) -> tuple[str, ...]:
        """The backend's names of those whose devices send."""
        return tuple(f"person-{number}" for number in range(self.users))

    @property
    def puts(self) -> bool:
        """Whether Uplift puts records, so that nothing is stored twice."""
        return self.like != "oneup"

    @property
    def seconds(self) -> float:
        """How long faults go on, before everything settles."""
        return max(self.kills, 1) * self.kill_every

    @property
    def frozen(self) -> float:
        """How long a frozen process stands still: longer than the lease."""
        return self.lease + 1.5

    @property
    def late(self) -> float:
        """How long after its request the simulated 1upHealth may store a resource.

        Below `settle` there is a margin: on a busy machine it also reads a request late.
        """
        return self.settle * (2.5 if self.beyond else 0.5)

    @property
    def lag(self) -> float:
        """How long after a write its searches find the resource."""
        return self.index_lag * (3.0 if self.beyond else 0.5)

    def environment(self) -> dict[str, str]:
        """Uplift's settings for the run: time limits so short that each is passed several times."""
        return {
            "UPLIFT_ATTEMPT_SECONDS": f"{self.attempt:g}",
            "UPLIFT_LEASE_SECONDS": f"{self.lease:g}",
            "UPLIFT_SETTLE_SECONDS": f"{self.settle:g}",
            "UPLIFT_INDEX_LAG_SECONDS": f"{self.index_lag:g}",
            "UPLIFT_MAX_SILENCE_SECONDS": f"{self.silence:g}",
            "UPLIFT_SWEEP_SECONDS": "0.7",
            "UPLIFT_BACKOFF_FIRST_SECONDS": "0.5",
            "UPLIFT_MAX_BACKOFF_SECONDS": "3",
            "UPLIFT_HOLD_SECONDS": "1",
            "UPLIFT_MAX_IN_FLIGHT": "40",
            "UPLIFT_DATABASE_CONNECTIONS": "5",
            "UPLIFT_SECOND_OPINION": "0",
            "UPLIFT_ONEUP_KEEPS_IDS": "true" if self.ids == "kept" else "false",
            "UPLIFT_DESTINATION_BUNDLE": self.bundle if self.has_bundles else "none",
            "UPLIFT_DESTINATION_BUNDLE_ENTRIES": "20",
            # The sandbox has no limit of its own.
            **({"UPLIFT_DESTINATION_MAX_ATTEMPTS_PER_SECOND": "500"} if self.puts else {}),
        }
