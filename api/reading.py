"""Reading back over HTTP: what 1upHealth holds of a user, as FHIR."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from pydantic import BeforeValidator

from uplift.api.callers import CallerDep, RelayDep
from uplift.api.problems import TITLES, Problem, documented
from uplift.api.schemas import AppUserId
from uplift.api.slashes import with_slashes
from uplift.fhir.interactions import Interaction, parse_interaction
from uplift.fhir.versions import FhirVersion
from uplift.ledger.credentials import Scope

router = APIRouter(tags=["reading back"])


class FhirResponse(Response):
    """A FHIR resource. It is health data: no cache keeps it."""

    media_type = "application/fhir+json"

    def init_headers(self, headers: Any = None) -> None:
        """Add what every such response says."""
        super().init_headers(headers)
        self.headers["Cache-Control"] = "no-store"


_OBSERVATION = {
    "resourceType": "Observation",
    "id": "obs-1",
    "meta": {"versionId": "1"},
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
}
_PAGE = {
    "resourceType": "Bundle",
    "type": "searchset",
    "total": 12,
    "link": [
        {"relation": "self", "url": "/v1/users/alice/fhir/R4/Observation?_count=1"},
        {"relation": "next", "url": "/v1/users/alice/fhir/R4/Observation?_count=1&_skip=1"},
    ],
    "entry": [{"resource": _OBSERVATION, "search": {"mode": "match"}}],
}
_SEARCH: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "description": what, "schema": schema}
        for name, what, schema in (
            (
                "_count",
                "Resources on a page, of a search; 10 if left out.",
                {"type": "integer", "minimum": 1, "maximum": 100},
            ),
            ("_skip", "Resources before the page.", {"type": "integer", "minimum": 0}),
            ("_id", "Of a search: ids, separated by commas.", {"type": "string"}),
            ("identifier", "Of a search: `system|value`, or `value`.", {"type": "string"}),
        )
    ]
}


@router.get(
    "/v1/users/{user}/fhir/{version}/{path:path}",
    response_class=FhirResponse,
    summary="Read back",
    openapi_extra=_SEARCH,
    responses={
        200: {
            "description": "A resource as 1upHealth has it, or one page of several",
            "content": {
                "application/fhir+json": {
                    "schema": {
                        "type": "object",
                        "required": ["resourceType"],
                        "properties": {"resourceType": {"type": "string"}},
                    },
                    "examples": {
                        "resource": {"summary": "A resource", "value": _OBSERVATION},
                        "page": {"summary": "One page of a search", "value": _PAGE},
                    },
                }
            },
            "headers": {
                "Cache-Control": {
                    "schema": {"type": "string"},
                    "description": "`no-store`: it is health data.",
                }
            },
        },
        **documented(400, 401, 403, 404, 409, 502, 503, 504),
    },
)
async def read_back(
    user: Annotated[
        AppUserId,
        BeforeValidator(with_slashes),
        Path(description="The backend's name of the person."),
    ],
    version: Annotated[str, Path(description="DSTU2, STU3 or R4.", examples=["R4"])],
    path: Annotated[
        str,
        Path(
            description="A FHIR interaction that reads: `{Type}` to search, `{Type}/{id}`,"
            " `{Type}/{id}/_history/{version}`, or `Patient/{id}/$everything`.",
            examples=["Observation"],
        ),
    ],
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
) -> Response:
    """Ask 1upHealth with the user's own token, and pass on what it answers: a resource, or one page
    of a search, whose links lead back here.

    Any search parameter of FHIR's is passed on. An API key with the scope `backend` is needed, and
    each read is in the audit trail.
    """
    caller.require(Scope.BACKEND)
    if request.scope["path"].endswith("\n"):
        path += "\n"  # the router's pattern ends with `$`, which leaves it out
    interaction = parse_interaction(_version(version), path, request.scope["query_string"])

    def address_of(other: Interaction) -> str:
        # Without scheme and host: what this request says of them may be anybody's word.
        return f"/v1/users/{quote(user, safe='')}/fhir/{other.version}/{other.address}"

    content = await relay.reader.read(user, interaction, address_of, by=caller.credential.actor)
    return FhirResponse(content)


def _version(named: str) -> FhirVersion:
    version = FhirVersion.parse(named)
    if version is None:
        raise Problem(400, TITLES[400], "The FHIR version is DSTU2, STU3 or R4.")
    return version
