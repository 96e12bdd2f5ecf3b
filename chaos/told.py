"""What `uplift doctor` says of the running system, asked from a thread."""

import asyncio
import threading
from collections.abc import Mapping

from uplift.doctor.examine import examine
from uplift.doctor.findings import Finding, Verdict
from uplift.settings import Settings


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
    """One examination beside everything else; `findings` are those so far."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(name="doctor", daemon=True)
        self._environment = dict(environment)
        self.findings: list[Finding] = []

    def run(self) -> None:
        """Examine every part."""

        async def every() -> None:
            async for finding in examine(settings_of(self._environment)):
                self.findings.append(finding)

        asyncio.run(every())
