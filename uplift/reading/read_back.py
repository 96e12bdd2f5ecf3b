"""Reads back what the user's destination has of the user: at 1upHealth with the user's own token.

One request in, one response of bounded size out. Its bytes are passed on as they came. Only the
links of a page are changed: they lead to Uplift, so that the caller's next page comes through it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from uplift.destinations.derived_ids import patient_id
from uplift.destinations.responses import Response, ResponseKind
from uplift.errors import (
    Conflict,
    InvalidRead,
    NeedsAuthorization,
    NotFound,
    TokenUnavailable,
    UnusableResponse,
    UpstreamTimedOut,
    UpstreamUnavailable,
)
from uplift.fhir.interactions import Interaction, bases_of, parse_link
from uplift.fhir.versions import FhirVersion
from uplift.ledger import named_patients, users
from uplift.ledger.audit import Action, Actor, note
from uplift.ledger.database import Database
from uplift.problem_types import ProblemType
from uplift.reading.of_person import confined, is_all_of
from uplift.sealing import KeyRing
from uplift.settings import Settings
from uplift.tokens.channels import Channel, Channels
from uplift.tokens.person import AccessToken, Person

# RFC 8288's names; `prev` is FHIR's in R5, `previous` in the versions before.
_RELATIONS = frozenset({"self", "first", "previous", "prev", "next", "last"})

AddressOf = Callable[[Interaction], str]
"""The address at which the caller can read an interaction."""


class Reader:
    """Reads at the destination on behalf of callers."""

    def __init__(
        self,
        database: Database,
        key_ring: KeyRing,
        channels: Channels,
        settings: Settings,
        id_key: bytes | None,
    ) -> None:
        self._id_key = id_key
        self._database = database
        self._key_ring = key_ring
        self._channels = channels
        self._max_bytes = settings.max_read_back_bytes
        self._seconds = settings.read_back_seconds

    async def read(
        self, app_user_id: str, interaction: Interaction, address_of: AddressOf, *, by: Actor
    ) -> bytes:
        """The bytes of the resource, or of the page with links by `address_of`. Audited.

        Raises NotFound for an unknown user or resource, Conflict if the person must consent again,
        InvalidRead if it refuses the request there, UpstreamUnavailable if it asks to slow down,
        UpstreamTimedOut, and UnusableResponse for any other response.
        """
        deadline = time.monotonic() + self._seconds
        person, channel, named = await self._find(app_user_id, by)
        base = channel.destination.base(interaction.version)
        if base is None:
            raise InvalidRead(
                ProblemType.INVALID_READ,
                f"The user's destination has no {interaction.version} resources.",
            )
        bases = bases_of(base, interaction.version)
        patient = self._patient(channel, person, named)
        if patient is not None:
            interaction = confined(interaction, patient)
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._ask(channel, person, interaction, deadline)
                if response.kind is not ResponseKind.FOUND:
                    raise self._failure(response, interaction)
                if patient is not None and not is_all_of(
                    response.content, interaction, patient, bases
                ):
                    raise NotFound(
                        ProblemType.NO_SUCH_RESOURCE,
                        "What the destination answers is not, or not all, of this user.",
                    )
                if not interaction.paged:
                    return response.content
                return self._relinked(response.content, interaction.version, bases, address_of)
        except TimeoutError:
            raise self._timed_out() from None
        except NeedsAuthorization:
            raise Conflict(
                ProblemType.NEEDS_AUTHORIZATION,
                "The user has no working grant at 1upHealth. The person must authorise again."
                " Then PUT /v1/users/NAME/grant stores the new grant, or POST /v1/users asks"
                " 1upHealth for one.",
            ) from None
        except TokenUnavailable as error:
            raise UpstreamUnavailable(
                ProblemType.UPSTREAM_UNAVAILABLE,
                f"There is no token for the user now ({error.code}). Try later.",
                retry_after=error.retry_after,
            ) from None

    async def _find(self, app_user_id: str, by: Actor) -> tuple[Person, Channel, str | None]:
        """The person, the channel to where their records go, and their Patient there, if the
        backend named one."""
        async with self._database.transaction() as connection:
            user = await users.require_user(connection, app_user_id, lock=True)
            # Before the read: no read may be missing from the audit trail.
            await note(connection, by, Action.READ_BACK, user_id=user.id)
        channel = self._channels.get(user.destination)
        if channel is None:
            raise UpstreamUnavailable(
                ProblemType.UPSTREAM_UNAVAILABLE,
                "The settings have no destination of the user's name for it. Try later.",
            )
        person = Person(user.id, user.app_user_id, user.key(self._key_ring))
        patients = named_patients.named_for(user, self._key_ring)
        return person, channel, patients.get(user.destination)

    def _patient(self, channel: Channel, person: Person, named: str | None) -> str | None:
        """The id of the person's Patient at a server that many share; None where the person's own
        token reads.

        Raises InvalidRead if Uplift cannot know there whose a resource is.
        """
        destination = channel.destination
        if destination.needs_grant:
            return None
        if named is not None:
            return named
        if self._id_key is None or destination.mode != "put" or destination.subject != "patient":
            raise InvalidRead(
                ProblemType.READ_REFUSED,
                "At this user's destination Uplift cannot tell whose a resource is. Read it there.",
            )
        return patient_id(self._id_key, app_user_id=person.app_user_id)

    async def _ask(
        self, channel: Channel, person: Person, interaction: Interaction, deadline: float
    ) -> Response:
        async def ask(token: AccessToken) -> Response:
            return await channel.fhir.read(
                authorization=token.authorization,
                version=interaction.version,
                address=interaction.address,
                resource_type=interaction.response_type,
                deadline=deadline,
                limit=self._max_bytes,
            )

        return await channel.access.with_token(person, ask)

    def _failure(self, response: Response, interaction: Interaction) -> Exception:
        code = response.code
        match response.kind:
            case ResponseKind.ABSENT if code == "http_410":
                return NotFound(
                    ProblemType.RESOURCE_DELETED, "The resource was deleted at the destination."
                )
            case ResponseKind.ABSENT:
                return NotFound(
                    ProblemType.NO_SUCH_RESOURCE,
                    "The destination has no such resource of this user.",
                )
            case ResponseKind.REFUSED:
                said = ", ".join((code, *response.issues))
                return InvalidRead(
                    ProblemType.READ_REFUSED,
                    f"The destination refuses this request ({said}). Check the search parameters."
                    " Not every type can be searched.",
                )
            case ResponseKind.BUSY:
                return UpstreamUnavailable(
                    ProblemType.UPSTREAM_UNAVAILABLE,
                    f"The destination asks to slow down ({code}). Try later.",
                    retry_after=response.retry_after,
                )
            case ResponseKind.UNAUTHORIZED:
                return UnusableResponse(
                    ProblemType.UNUSABLE_RESPONSE,
                    f"The destination refuses the token, although it is new ({code}).",
                )
        if code in ("no_answer", "http_408", "http_504"):
            return self._timed_out()
        if code == "response_too_large":
            how = "Use a lower _count" if interaction.paged else "Raise the limit"
            return UnusableResponse(
                ProblemType.UNUSABLE_RESPONSE,
                f"The response has more than {self._max_bytes} bytes"
                f" (UPLIFT_MAX_READ_BACK_BYTES). {how}.",
            )
        if code == "not_the_resource":
            return _unusable()
        return UnusableResponse(
            ProblemType.UNUSABLE_RESPONSE,
            f"The read failed at the destination ({code}). Try again. If it stays so, check its"
            " address, and ask who runs it whether this application may read.",
        )

    def _timed_out(self) -> UpstreamTimedOut:
        return UpstreamTimedOut(
            ProblemType.UPSTREAM_TIMED_OUT,
            f"The destination did not respond within {self._seconds:g} seconds"
            " (UPLIFT_READ_BACK_SECONDS). Try again. For a search, use a lower _count.",
        )

    def _relinked(
        self, page: bytes, version: FhirVersion, bases: tuple[str, ...], address_of: AddressOf
    ) -> bytes:
        """The page with changed links. Everything else keeps its bytes: decimals stay exact."""
        try:
            elements = msgspec.json.decode(page, type=dict[str, msgspec.Raw])
            if "link" in elements:
                links = msgspec.json.decode(elements["link"], type=list[dict[str, Any]])
                rewritten = self._rewritten(links, version, bases, address_of)
                elements["link"] = msgspec.Raw(msgspec.json.encode(rewritten))
            return msgspec.json.encode(elements)
        except (ValueError, RecursionError):
            raise _unusable() from None

    def _rewritten(
        self,
        links: list[dict[str, Any]],
        version: FhirVersion,
        bases: tuple[str, ...],
        address_of: AddressOf,
    ) -> list[dict[str, str]]:
        rewritten = []
        for link in links:
            relation, url = link.get("relation"), link.get("url")
            if not isinstance(relation, str) or relation not in _RELATIONS:
                continue
            target = parse_link(version, bases, url) if isinstance(url, str) else None
            if target is not None and target.paged:
                rewritten.append({"relation": relation, "url": address_of(target)})
            elif relation == "next":
                # Without this link the page would look like the last one.
                raise UnusableResponse(
                    ProblemType.UNUSABLE_RESPONSE,
                    "The destination's link to the next page does not begin with the destination's"
                    " address in the settings, so Uplift does not follow it. Check that address.",
                )
        return rewritten


def _unusable() -> UnusableResponse:
    return UnusableResponse(
        ProblemType.UNUSABLE_RESPONSE,
        "The destination sent something else than the resource or page that the caller asked for."
        " Check its address in the settings.",
    )
