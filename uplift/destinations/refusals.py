"""Why a destination refused a record, without a word of its own: its texts may quote the record."""

from typing import Any

import httpx

from uplift.destinations.responses import ISSUE_TYPES, fhir_object
from uplift.fhir.element_paths import element_path
from uplift.fhir.versions import FhirVersion

_MAX_ISSUES = 20
_MAX_PATHS = 5
_SEVERITIES = ("fatal", "error", "warning", "information")
_OWN_WORDS = "1upHealth says so. Its words are not kept, since they may quote the record."


def refusal_issues(
    headers: httpx.Headers, body: bytes, version: FhirVersion, resource_type: str
) -> tuple[dict[str, Any], ...]:
    """The issues of an OperationOutcome: FHIR's issue types, and paths of elements that exist.

    Each is as `issues` of an upload's status shows it. Empty if the response has none.
    """
    outcome = fhir_object(headers, body) or {}
    listed = outcome.get("issue")
    if outcome.get("resourceType") != "OperationOutcome" or not isinstance(listed, list):
        return ()
    found: list[dict[str, Any]] = []
    for issue in listed:
        if not isinstance(issue, dict):
            continue
        code, severity = issue.get("code"), issue.get("severity")
        if not isinstance(code, str) or code not in ISSUE_TYPES:
            continue
        shown = {
            "severity": severity if severity in _SEVERITIES else "error",
            "code": code,
            "expression": _paths(issue, version, resource_type),
            "diagnostics": _OWN_WORDS,
        }
        if shown not in found:
            found.append(shown)
        if len(found) == _MAX_ISSUES:
            break
    return tuple(found)


def _paths(issue: dict[str, Any], version: FhirVersion, resource_type: str) -> list[str]:
    paths: list[str] = []
    for name in ("expression", "location"):  # DSTU2 has `location` alone
        texts = issue.get(name)
        for text in texts if isinstance(texts, list) else []:
            path = element_path(version, resource_type, text)
            if path is not None and path not in paths and len(paths) < _MAX_PATHS:
                paths.append(path)
    return paths
