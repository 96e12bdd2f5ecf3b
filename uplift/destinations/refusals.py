"""Why a destination refused a record, without its texts: they may quote the record."""

import re
from typing import Any

import httpx

from uplift.destinations.responses import ISSUE_TYPES, fhir_object
from uplift.fhir.element_paths import element_path
from uplift.fhir.versions import FhirVersion

_MAX_ISSUES = 20
_MAX_PATHS = 5
_SEVERITIES = ("fatal", "error", "warning", "information")
_OWN_WORDS = "The destination says so. Its words are not kept, since they may quote the record."
# A server's own code, at the very beginning. HAPI calls every issue `processing`, and only this
# tells them apart: https://hapifhir.io/hapi-fhir/docs/server_plain/exception_codes.html
_SERVER_CODE = re.compile(r"HAPI-[0-9]{4}(?=:)", re.ASCII)


def refusal_issues(
    headers: httpx.Headers, body: bytes, version: FhirVersion, resource_type: str
) -> tuple[dict[str, Any], ...]:
    """The issues in the body of a response, as `issues_of` has them."""
    return issues_of(fhir_object(headers, body), version, resource_type)


def issues_of(
    outcome: dict[str, Any] | None, version: FhirVersion, resource_type: str
) -> tuple[dict[str, Any], ...]:
    """The issues of an OperationOutcome: FHIR's issue types, and paths of elements that exist.

    Each is as `issues` of an upload's status shows it. Empty if the response has none.
    """
    outcome = outcome or {}
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
            "diagnostics": _words(issue.get("diagnostics")),
        }
        if shown not in found:
            found.append(shown)
        if len(found) == _MAX_ISSUES:
            break
    return tuple(found)


def _words(diagnostics: object) -> str:
    """Our own words, behind the server's code if it begins with one: never more of its text."""
    code = _SERVER_CODE.match(diagnostics) if isinstance(diagnostics, str) else None
    return f"{code[0]}. {_OWN_WORDS}" if code else _OWN_WORDS


def _paths(issue: dict[str, Any], version: FhirVersion, resource_type: str) -> list[str]:
    paths: list[str] = []
    for name in ("expression", "location"):  # DSTU2 has `location` alone
        texts = issue.get(name)
        for text in texts if isinstance(texts, list) else []:
            path = element_path(version, resource_type, text)
            if path is not None and path not in paths and len(paths) < _MAX_PATHS:
                paths.append(path)
    return paths
