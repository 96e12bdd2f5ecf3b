"""Problems for FHIR clients: an OperationOutcome, if that is what they accept."""

import re

from fastapi.responses import JSONResponse
from starlette.requests import Request

from uplift.api.problems import PROBLEM_TYPE, Problem

# The FHIR media types of R4 and STU3, and of DSTU2.
_FHIR_TYPES = ("application/fhir+json", "application/json+fhir")

_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")

# Source: https://hl7.org/fhir/R4/valueset-issue-type.html. DSTU2 and STU3 have these codes as well.
_CODES = {
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    408: "timeout",
    409: "conflict",
    413: "too-long",
    415: "not-supported",
    422: "conflict",
    429: "throttled",
    500: "exception",
    502: "exception",
    503: "transient",
    504: "timeout",
}


def answer(problem: Problem, request: Request) -> JSONResponse:
    """The problem as the caller accepts it: problem+json, or an OperationOutcome."""
    weights = _weights(request.headers.getlist("accept"))
    fhir = max(weights.get(each, 0.0) for each in _FHIR_TYPES)
    if not fhir or weights.get(PROBLEM_TYPE, 0.0) >= fhir:
        return problem.response()
    wrong = [f"{each['where']}: {each['what']}" for each in problem.more.get("errors", ())]
    return JSONResponse(
        {
            "resourceType": "OperationOutcome",
            "issue": [
                {
                    "severity": "error",
                    "code": _CODES.get(problem.kind.status, "invalid"),
                    "details": {"coding": [{"code": problem.kind.code}]},
                    "diagnostics": " ".join([problem.detail, *wrong]),
                }
            ],
        },
        problem.kind.status,
        problem.headers,
        media_type=_FHIR_TYPES[0],
    )


def _weights(accept: list[str]) -> dict[str, float]:
    """How much each media type is wanted, from 0, not at all, to 1 (RFC 9110, 12.4.2)."""
    weights: dict[str, float] = {}
    for each in ",".join(accept).lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        weights[name] = float(weight) if _WEIGHT.fullmatch(weight) else 0.0
    return weights
