"""The requests that delete a resource at a destination, and then see that it is gone."""

from collections.abc import Mapping

import orjson

from uplift.destinations.references import PATIENT
from uplift.destinations.requests import Put, Upsert
from uplift.destinations.responses import Response, ResponseKind
from uplift.fhir.versions import FhirVersion
from uplift.ledger.upstream_deletions import Claimed
from uplift.tokens.channels import Channel
from uplift.tokens.person import AccessToken

Target = Mapping[str, str]
"""The resource's id; or the search that finds it, as `system`, `value` and `parameter`."""

_REFERRED_TO = "http_409"
# Until then, what refers to it is deleted, unless it waits for this one.
_REFUSALS_FIRST = 3


async def delete_or_see_gone(
    channel: Channel, token: AccessToken, claimed: Claimed, target: Target, *, deadline: float
) -> Response:
    """Delete the resource; or look for it, if the destination has said that it is gone.

    `deadline` is on `time.monotonic`.
    """
    found = await _find(channel, token, claimed, target, deadline)
    if claimed.deleted or not isinstance(found, str):
        return found if isinstance(found, Response) else Response(ResponseKind.FOUND, "")
    response = await channel.fhir.delete(
        authorization=token.authorization,
        version=FhirVersion(claimed.fhir_version),
        resource_type=claimed.resource_type,
        resource_id=found,
        deadline=deadline,
    )
    if (
        response.code == _REFERRED_TO
        and claimed.tries >= _REFUSALS_FIRST
        and claimed.resource_type != PATIENT
        and channel.destination.derives_ids
    ):
        await _empty(channel, token, claimed, found, deadline)
    return response


async def _empty(
    channel: Channel, token: AccessToken, claimed: Claimed, resource_id: str, deadline: float
) -> None:
    """Take out what the resource refers to, and all else that is in it.

    Of two that refer to each other, a server with referential integrity deletes neither. A server
    that checks more than its references refuses an empty resource; then it stays as it is.
    """
    empty = {"resourceType": claimed.resource_type, "id": resource_id}
    await channel.fhir.write(
        authorization=token.authorization,
        version=FhirVersion(claimed.fhir_version),
        resource_type=claimed.resource_type,
        write=Put(resource_id),
        body=orjson.dumps(empty),
        deadline=deadline,
    )


async def _find(
    channel: Channel, token: AccessToken, claimed: Claimed, target: Target, deadline: float
) -> Response | str:
    """The id of the resource to delete. A response: what a read or a search found instead."""
    version = FhirVersion(claimed.fhir_version)
    if "id" in target and not claimed.deleted:
        return target["id"]
    if "id" in target:
        return await channel.fhir.look_up(
            authorization=token.authorization,
            version=version,
            resource_type=claimed.resource_type,
            resource_id=target["id"],
            deadline=deadline,
        )
    found = await channel.fhir.match(
        authorization=token.authorization,
        version=version,
        resource_type=claimed.resource_type,
        upsert=Upsert(target["value"], target["parameter"], target["system"]),
        deadline=deadline,
    )
    there = found.receipt.id if found.receipt is not None else None
    return there if there and not claimed.deleted else found
