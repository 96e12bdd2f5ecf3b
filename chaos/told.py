"""What `uplift doctor` says of the running system, asked from a thread."""

import asyncio
import threading
from collections.abc import Collection, Mapping

from uplift.doctor.examine import examine
from uplift.doctor.findings import Finding, Verdict
from uplift.settings import Settings

_PAUSE = 0.5
_LEDGER = "postgres"


def settings_of(environment: Mapping[str, str]) -> Settings:
    """The settings of processes with that environment."""
    fields = {name: f"UPLIFT_{name.upper()}" for name in Settings.model_fields}
    values = {
        name: environment[variable] for name, variable in fields.items() if variable in environment
    }
    return Settings.model_validate(values)


def examined(environment: Mapping[str, str]) -> list[Finding]:
    """Every finding of one examination."""
    examination = Examination(environment)
    examination.start()
    examination.join()
    return examination.findings


def failures(findings: list[Finding]) -> list[Finding]:
    """Those for which the doctor's exit code is 1."""
    return [finding for finding in findings if finding.verdict is Verdict.FAIL]


class Examination(threading.Thread):
    """One examination beside everything else; `findings` are those so far.

    With `until`, it is repeated until the doctor fails for one of these parts, or nobody asks any
    more: a process tells what it lacks every few seconds.
    """

    def __init__(self, environment: Mapping[str, str], until: Collection[str] = ()) -> None:
        super().__init__(name="doctor", daemon=True)
        self._environment = dict(environment)
        self._until = frozenset(until)
        self._over = threading.Event()
        self.findings: list[Finding] = []
        self.examined = 0
        """How many examinations have ended that could see it. Without the ledger, which a kill may
        have taken away, the doctor sees no process."""

    @property
    def told(self) -> bool:
        """Whether it failed for one of the parts."""
        return any(each.part in self._until for each in failures(list(self.findings)))

    def end(self) -> None:
        """Begin no other examination."""
        self._over.set()

    def run(self) -> None:
        """Examine every part."""

        async def every() -> None:
            read_ledger = True
            async for finding in examine(settings_of(self._environment)):
                self.findings.append(finding)
                if self._until and (self.told or self._over.is_set()):
                    return
                read_ledger &= finding.part != _LEDGER or finding.verdict is not Verdict.FAIL
            self.examined += read_ledger

        asyncio.run(every())
        while self._until and not self.told and not self._over.wait(_PAUSE):
            asyncio.run(every())
