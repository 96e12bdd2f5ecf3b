"""Reading back over HTTP: the FHIR resources that the destination has of a user."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse

from uplift import __version__
from uplift.api.admission import AdmissionDep
from uplift.api.callers import CallerDep, RelayDep
from uplift.api.fair_share import Receiving
from uplift.api.problems import Problem, documented, try_later
from uplift.api.public_address import public_address
from uplift.api.query_names import PassesQueryOn
from uplift.api.reading_openapi import CAPABILITIES_READ
from uplift.api.slashes import UserInPath
from uplift.api.work import work_of
from uplift.fhir.capability_statement import capability_statement
from uplift.fhir.interactions import Interaction, parse_interaction
from uplift.fhir.versions import FhirVersion
from uplift.ledger.credentials import Scope
from uplift.problem_types import ProblemType

router = APIRouter(tags=["reading back"], route_class=PassesQueryOn)


class FhirResponse(Response):
    """A FHIR resource, as its bytes."""

    media_type = "application/fhir+json"


class _FhirJsonResponse(JSONResponse):
    """A FHIR resource that is made here."""

    media_type = FhirResponse.media_type


_Version = Annotated[str, Path(description="The FHIR version: DSTU2, STU3 or R4.", examples=["R4"])]


@router.get(
    "/v1/users/{user}/fhir/{version}/metadata",
    response_class=_FhirJsonResponse,
    summary="Read what reading back offers",
    responses=CAPABILITIES_READ | documented(400),
)
async def get_capabilities(user: UserInPath, version: _Version, request: Request) -> Response:
    """The CapabilityStatement (DSTU2: Conformance) of reading back. FHIR clients ask for it first,
    without a credential. It is the same for every user, and for a name that is no user.
    """
    wanted = _version(version)
    base = f"{public_address(request)}{_base(user, wanted)}"
    statement = capability_statement(wanted, __version__, base)
    return _FhirJsonResponse(statement)


@router.get(
    "/v1/users/{user}/fhir/{version}/{path:path}",
    response_class=FhirResponse,
    # `reading_openapi` describes it as one path for each interaction: generated clients encode the
    # slashes of a parameter.
    include_in_schema=False,
)
async def read_back(
    user: UserInPath,
    version: _Version,
    path: str,
    request: Request,
    relay: RelayDep,
    caller: CallerDep,
    admission: AdmissionDep,
) -> Response:
    """Asks the user's destination, 1upHealth with the user's own token, and passes its response on:
    a resource, or one page of a search. Every search parameter of FHIR is passed on.
    """
    caller.require(Scope.READ_BACK)
    if request.scope["path"].endswith("\n"):
        path += "\n"  # the router's pattern ends with `$`, which drops this character
    interaction = parse_interaction(_version(version), path, request.scope["query_string"])

    # With scheme and host: FHIR clients follow no other links.
    address = public_address(request)

    def address_of(other: Interaction) -> str:
        return f"{address}{_base(user, other.version)}/{other.address}"

    work_of(request).pause()
    receiving = Receiving()
    try:
        async with admission.read_back(caller.credential, receiving), receiving.within(None):
            content = await relay.reader.read(user, interaction, address_of, by=caller.actor)
    except TimeoutError:
        raise try_later(
            ProblemType.BUSY,
            "The destination is slow, and the API needs its capacity for others. Ask again later.",
        ) from None
    return FhirResponse(content)


def _base(user: str, version: FhirVersion) -> str:
    return f"/v1/users/{quote(user, safe='')}/fhir/{version}"


def _version(name: str) -> FhirVersion:
    version = FhirVersion.parse(name)
    if version is None:
        raise Problem(ProblemType.FHIR_VERSION, "The FHIR version must be DSTU2, STU3 or R4.")
    return version
