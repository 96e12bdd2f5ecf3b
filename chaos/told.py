"""What `uplift doctor` says of the running system, asked from a thread."""

import asyncio
import threading
import time
from collections.abc import Collection, Mapping

from uplift.doctor.examine import examine
from uplift.doctor.findings import Finding, Verdict
from uplift.settings import Settings

_PAUSE = 0.5
_LEDGER = "postgres"
_PROCESSES = "processes"
# A process says what it lacks with its next heartbeat: every fifth part of the longest silence.
_BEAT_PART = 0.2
_BEAT_TAKES = 1.0


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


def could_see(parts: Collection[str], waited: float, settings: Settings) -> bool:
    """Whether an examination that began `waited` seconds after a fault of these parts can see it.

    What only the processes tell is not there before their next heartbeat.
    """
    heard = _BEAT_PART * settings.max_silence_seconds + _BEAT_TAKES
    return waited >= heard or frozenset(parts) != {_PROCESSES}


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
        have taken away, the doctor sees no process. While Redis does not answer, one takes longer
        than a fault lasts, and the only one began before the processes had told anything."""

    @property
    def told(self) -> bool:
        """Whether it failed for one of the parts."""
        return any(each.part in self._until for each in failures(list(self.findings)))

    def end(self) -> None:
        """Begin no other examination."""
        self._over.set()

    def run(self) -> None:
        """Examine every part."""

        settings = settings_of(self._environment)
        began = time.monotonic()

        async def every() -> None:
            read_ledger = could_see(self._until, time.monotonic() - began, settings)
            async for finding in examine(settings):
                self.findings.append(finding)
                if self._until and (self.told or self._over.is_set()):
                    return
                read_ledger &= finding.part != _LEDGER or finding.verdict is not Verdict.FAIL
            self.examined += read_ledger

        asyncio.run(every())
        while self._until and not self.told and not self._over.wait(_PAUSE):
            asyncio.run(every())
