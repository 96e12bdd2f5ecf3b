"""OperationOutcomes: of refusals, and of successes. HAPI's have its codes, others' FHIR's."""

import re
from typing import Any

from uplift.sandbox.servers.profile import Profile

_STORAGE_CODES = "https://hapifhir.io/fhir/CodeSystem/hapi-fhir-storage-response-code"
_HAPI_CODE = re.compile(r"HAPI-\d{4}: ")
_ISSUE_TYPES = {
    400: "invalid",
    401: "login",
    404: "not-found",
    409: "conflict",
    410: "deleted",
    412: "conflict",
    413: "too-long",
    415: "not-supported",
    422: "invariant",
    429: "throttled",
}
"""https://hl7.org/fhir/R4/valueset-issue-type.html"""


class Refusal(Exception):
    """A request that is not carried out. `diagnostics` begins with HAPI's code: `HAPI-0960: …`."""

    def __init__(self, status: int, diagnostics: str) -> None:
        super().__init__(diagnostics)
        self.status = status
        self.diagnostics = diagnostics


def refused(why: Refusal, profile: Profile, *, in_bundle: bool = False) -> dict[str, Any]:
    """Why not. HAPI's code is always `processing`, and `exception` of an entry."""
    if profile.is_hapi:
        return _error("exception" if in_bundle else "processing", why.diagnostics)
    return _error(_ISSUE_TYPES.get(why.status, "processing"), _HAPI_CODE.sub("", why.diagnostics))


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


def _error(code: str, diagnostics: str) -> dict[str, Any]:
    return _outcome({"severity": "error", "code": code, "diagnostics": diagnostics})


LOCK_CONFLICT = (
    "HAPI-0550: HAPI-0823: The operation has failed with a version constraint failure. This "
    "generally means that two clients/threads were trying to update the same resource at the same "
    "time, and this request was chosen as the failing request."
)
"""What one of two is told that write the same resource at once."""
