"""Reading back over HTTP: the FHIR resources that 1upHealth has of a user."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from pydantic import BeforeValidator

from uplift.api.admission import AdmissionDep
from uplift.api.callers import CallerDep, RelayDep
from uplift.api.fair_share import Receiving
from uplift.api.problems import Problem, documented
from uplift.api.reading_openapi import RESOURCE_READ, SEARCH
from uplift.api.schemas import AppUserId
from uplift.api.slashes import with_slashes
from uplift.api.work import work_of
from uplift.fhir.interactions import Interaction, parse_interaction
from uplift.fhir.versions import FhirVersion
from uplift.ledger.credentials import Scope

router = APIRouter(tags=["reading back"])


class FhirResponse(Response):
    """A FHIR resource. It is health data, so no cache may keep it."""

    media_type = "application/fhir+json"

    def init_headers(self, headers: Any = None) -> None:
        """Add the headers that every such response has."""
        super().init_headers(headers)
        self.headers["Cache-Control"] = "no-store"


@router.get(
    "/v1/users/{user}/fhir/{version}/{path:path}",
    response_class=FhirResponse,
    summary="Read back from 1upHealth",
    openapi_extra=SEARCH,
    responses=RESOURCE_READ | documented(400, 401, 403, 404, 409, 502, 503, 504),
)
async def read_back(
    user: Annotated[
        AppUserId,
        BeforeValidator(with_slashes),
        Path(description="The backend's name for the person (`appUserId`)."),
    ],
    version: Annotated[
        str, Path(description="The FHIR version: DSTU2, STU3 or R4.", examples=["R4"])
    ],
    path: Annotated[
        str,
        Path(
            description="A FHIR interaction that reads: `{Type}` (search), `{Type}/{id}`,"
            " `{Type}/{id}/_history/{version}` or `Patient/{id}/$everything`.",
            examples=["Observation"],
        ),
    ],
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
    admission: AdmissionDep,
) -> Response:
    """Asks 1upHealth with the user's own token and passes its response on: a resource, or one page
    of a search. The links of a page lead back here.

    Every search parameter of FHIR is passed on. This needs an API key with the scope `backend`.
    Each read is in the audit trail.
    """
    caller.require(Scope.BACKEND)
    if request.scope["path"].endswith("\n"):
        path += "\n"  # the router's pattern ends with `$`, which drops this character
    interaction = parse_interaction(_version(version), path, request.scope["query_string"])

    def address_of(other: Interaction) -> str:
        # Without scheme and host, because anybody can put any host into a request.
        return f"/v1/users/{quote(user, safe='')}/fhir/{other.version}/{other.address}"

    work_of(request).pause()
    receiving = Receiving()
    try:
        async with admission.read_back(caller.credential, receiving), receiving.within(None):
            content = await relay.reader.read(user, interaction, address_of, by=caller.actor)
    except TimeoutError:
        raise Problem(
            503,
            "1upHealth is slow, and the API needs its capacity for others. Ask again later.",
            headers={"Retry-After": "5"},
        ) from None
    return FhirResponse(content)


def _version(name: str) -> FhirVersion:
    version = FhirVersion.parse(name)
    if version is None:
        raise Problem(400, "The FHIR version must be DSTU2, STU3 or R4.")
    return version
