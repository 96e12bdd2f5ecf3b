"""Does this version of Uplift work on a ledger that another version migrated? Pure.

A migration that only adds (*expand*) keeps older versions working. One that takes away or changes
what they use (*contract*) says in the ledger which revision is the oldest that still works.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Revisions:
    """`at`: the ledger's, None if it is empty. `oldest`: the oldest that works on it. `ours`: the
    newest that this version knows."""

    at: str | None
    oldest: str | None
    ours: str

    @property
    def is_newer(self) -> bool:
        """Whether a newer version of Uplift migrated the ledger."""
        return self.at is not None and int(self.at) > int(self.ours)

    @property
    def problem(self) -> str | None:
        """Why this version does not work on the ledger, and what to do; None if it works."""
        if self.at is None or int(self.at) < int(self.ours):
            return (
                f"The ledger has revision {self.at or 'none'}, and this version of Uplift needs"
                f" {self.ours}: run `uplift migrate`."
            )
        if self.oldest is None or int(self.oldest) > int(self.ours):
            return (
                f"The ledger has revision {self.at}, on which versions of Uplift work that know"
                f" {self.oldest}; this one knows {self.ours}: deploy the newer version."
            )
        return None
