"""OperationOutcomes in HAPI's shape: of refusals, and of successes."""

from typing import Any

_STORAGE_CODES = "https://hapifhir.io/fhir/CodeSystem/hapi-fhir-storage-response-code"


class Refusal(Exception):
    """A request that is not carried out. `diagnostics` begins with HAPI's code: `HAPI-0960: …`."""

    def __init__(self, status: int, diagnostics: str) -> None:
        super().__init__(diagnostics)
        self.status = status
        self.diagnostics = diagnostics


def refused(diagnostics: str, code: str = "processing") -> dict[str, Any]:
    """Why not. Of a single request the code is always `processing`, of an entry `exception`."""
    return _outcome({"severity": "error", "code": code, "diagnostics": diagnostics})


def succeeded(code: str, diagnostics: str) -> dict[str, Any]:
    """What was done: `SUCCESSFUL_UPDATE` and its like."""
    details = {"coding": [{"system": _STORAGE_CODES, "code": code}]}
    return _outcome(
        {
            "severity": "information",
            "code": "informational",
            "details": details,
            "diagnostics": diagnostics,
        }
    )


def _outcome(issue: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "OperationOutcome", "issue": [issue]}


LOCK_CONFLICT = refused(
    "HAPI-0550: HAPI-0823: The operation has failed with a version constraint failure. This "
    "generally means that two clients/threads were trying to update the same resource at the same "
    "time, and this request was chosen as the failing request."
)
"""The body of the 409 for one of two that write the same resource at once."""
