"""Do the destinations respond, do they take the login, are they of the versions of their bases, and
can they do what is needed?

Where each person logs in, as at 1upHealth, only what a base says of itself is read.
"""

import asyncio
import time

import redis.asyncio

from uplift.destinations.client import FhirClient
from uplift.destinations.configured import configured_destinations
from uplift.destinations.destination import Destination
from uplift.destinations.http_client import open_http
from uplift.destinations.responses import Response, ResponseKind
from uplift.doctor.findings import Finding, fail, ok, warn
from uplift.doctor.manual import judge_manual
from uplift.doctor.queues import FAST
from uplift.doctor.trial import Tester, judge_trial
from uplift.errors import ConfigurationError, LoginFailed, TokenUnavailable
from uplift.fhir.versions import FhirVersion
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.tokens.channels import login_source
from uplift.tokens.logins import LoginSource

PART = "destinations"
_SECONDS = 10.0


async def ask(settings: Settings, *, write: bool = False) -> list[Finding]:
    """Each base of each destination: what it says of itself, and whether it takes the login.

    `write`: those that the deployment logs in to are tried with a test Patient.
    """
    try:
        destinations = configured_destinations(settings)
    except ConfigurationError:
        return []  # the settings' own part says it
    found = []
    for destination in destinations.values():
        if destination.needs_grant:
            found += await _read_manuals(destination, settings)
        else:
            found += await _ask(destination, settings, write=write)
    return found


async def _ask(destination: Destination, settings: Settings, *, write: bool) -> list[Finding]:
    if settings.redis_url is None or settings.master_keys is None:
        return []
    http = open_http(
        connections=2, proxy=destination.proxy, certificate=destination.client_certificate
    )
    client = redis.asyncio.from_url(settings.redis_url.get_secret_value(), **FAST)
    try:
        key_ring = KeyRing.parse(settings.master_keys.get_secret_value())
        source = login_source(destination, http, client, key_ring)
        assert source is not None  # noqa: S101  it needs no grant
        fhir = FhirClient(http, destination, settings)
        asked = [
            _of_base(fhir, source, destination, each, write=write) for each in destination.bases
        ]
        return [finding for found in await asyncio.gather(*asked) for finding in found]
    finally:
        await http.aclose()
        await client.aclose()


async def _read_manuals(destination: Destination, settings: Settings) -> list[Finding]:
    """What the bases say of themselves to somebody without a token; nothing where they do not.

    Whether they respond at all is said by `upstream`.
    """
    async with open_http(
        connections=2, proxy=destination.proxy, certificate=destination.client_certificate
    ) as http:
        fhir = FhirClient(http, destination, settings)
        asked = [
            fhir.check_version(authorization="", version=each, deadline=time.monotonic() + _SECONDS)
            for each in destination.bases
        ]
        seen = dict(zip(destination.bases, await asyncio.gather(*asked), strict=True))
    found: list[Finding] = []
    for version, response in seen.items():
        if response.kind is ResponseKind.FOUND:
            found += judge_manual(destination, version, response.resource or {})
        elif response.code == "wrong_fhir_version":
            found.append(judge_server(destination.name, version, response))
    return found


async def _of_base(
    fhir: FhirClient,
    source: LoginSource,
    destination: Destination,
    version: FhirVersion,
    *,
    write: bool,
) -> list[Finding]:
    try:
        authorization = (await source.token()).authorization
        response = await fhir.check_version(
            authorization=authorization, version=version, deadline=time.monotonic() + _SECONDS
        )
    except LoginFailed as error:
        response = Response(ResponseKind.UNAUTHORIZED, error.code)
    except TokenUnavailable as error:
        response = Response(ResponseKind.UNKNOWN, error.code)
    found = [judge_server(destination.name, version, response)]
    if response.kind is not ResponseKind.FOUND:
        return found
    proven: frozenset[str] = frozenset()
    tried: list[Finding] = []
    if write:
        done = await Tester(fhir, destination, version, authorization).run()
        proven = done.proven
        tried = judge_trial(f"{destination.name}, base of {version}", destination.mode, done)
    return [*found, *judge_manual(destination, version, response.resource or {}, proven), *tried]


def judge_server(name: str, version: FhirVersion, response: Response) -> Finding:
    """What the response to a read of `/metadata` means."""
    what = f"{name}, base of {version}"
    match response.kind, response.code:
        case ResponseKind.FOUND, _:
            return ok(PART, f"{what}: a server of that version, and it takes the login")
        case _, "wrong_fhir_version":
            return fail(
                PART,
                f"{what}: the server is of another FHIR version",
                "Correct the base. Nothing is sent there meanwhile: the server would take records"
                " and drop what it does not know.",
            )
        case ResponseKind.HOLD, _ if response.status_code != 403:
            return fail(
                PART,
                f"{what}: no /metadata with a FHIR version (HTTP {response.status_code})",
                "Check the base, and the tenant if there is one. Nothing is sent there meanwhile.",
            )
        case ((ResponseKind.HOLD | ResponseKind.UNAUTHORIZED), code):
            return fail(
                PART,
                f"{what}: the login is not accepted ({code})",
                "Check the login of the destination. Uploads are held meanwhile.",
            )
        case ResponseKind.BUSY, code:
            return warn(PART, f"{what}: the server is busy ({code})", "Try later.")
    return fail(
        PART,
        f"{what}: the server does not respond ({response.code})",
        "Check the address. Check that this machine can reach it (DNS, firewall, proxy, TLS)."
        " Uploads wait meanwhile.",
    )
