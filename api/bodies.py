"""Reads the body of a request, and stops at the size limit.

FastAPI would read the whole body first, and ask for the credential after that.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from uplift.api.admission import Admission
from uplift.api.fair_share import Part, Receiving
from uplift.api.gzip_bodies import Gunzip, NotGzipError
from uplift.api.least_rate import LeastRate
from uplift.api.problems import Problem, try_later
from uplift.api.request_bodies import WHOLE_BODY
from uplift.api.work import work_of
from uplift.intake.labels import not_json
from uplift.intake.repeated_names import repeated_name
from uplift.intake.submission import names_repeated
from uplift.problem_types import ProblemType
from uplift.settings import Settings

JSON_TYPES = ("application/json", "application/fhir+json", "application/json+fhir")

_MAX_MODEL_BYTES = 64 * 1024
# A larger body leaves others their time while it arrives.
_QUICK_BYTES = 128 * 1024
# More digits than any accepted length. Python refuses to parse numbers with thousands of digits.
_MAX_DIGITS = 18

_FHIR_VERSION = re.compile(r';\s*fhirversion\s*=\s*"?([^";]*[^";\s])', re.IGNORECASE)

_Model = TypeVar("_Model", bound=BaseModel)


async def read_json_body(request: Request, limit: int, part: Part) -> bytes:
    """The body of a JSON request. `part` grows by what arrives.

    Raises a Problem: 415 for another content type or coding, 413 if more than `limit` bytes are
    announced or arrive, unpacked, 408 if the body is too slow, 503 if there is no capacity for it.
    """
    check_type(request, JSON_TYPES)
    announced = _announced(request)
    if announced is not None and announced > limit:
        raise too_large(limit)
    if (
        WHOLE_BODY in request.scope
        and announced is not None
        and announced <= _QUICK_BYTES
        and not _codings(request)
    ):
        whole = await _take_whole(request)
        if len(whole) > limit:
            raise too_large(limit)
        await part.grow(len(whole))
        return whole
    body = bytearray()
    async for chunk in read_chunks(request, part.receiving, limit):
        if len(body) + len(chunk) > limit:
            raise too_large(limit)
        await part.grow(len(chunk))
        body += chunk
    return bytes(body)


async def _take_whole(request: Request) -> bytes:
    """The body of a request that has come completely: no time passes, and nothing is set up for it.

    Raises ClientDisconnect.
    """
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    body: bytes = message["body"]
    return body


def check_type(request: Request, types: Sequence[str]) -> str:
    """The content type of a request. It must be one of `types`.

    Raises a Problem (415) for another content type, or a coding that is not gzip.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in types:
        raise Problem(
            ProblemType.CONTENT_TYPE,
            f"Send the body with the Content-Type {' or '.join(types)}.",
            headers={"Accept": ", ".join(types)},
        )
    if _codings(request) not in ([], ["gzip"], ["x-gzip"]):
        raise Problem(
            ProblemType.CONTENT_ENCODING,
            "Send the body packed once with gzip, or without a Content-Encoding.",
            headers={"Accept-Encoding": "gzip"},
        )
    return content_type


def media_type_version(request: Request) -> str | None:
    """The FHIR version that the Content-Type names, as it stands there.

    Source: https://hl7.org/fhir/R4/http.html#version-parameter. Names of parameters have no case
    (RFC 9110, 5.6.6).
    """
    content_type = request.headers.get("content-type", "")
    if ";" not in content_type:  # as for nearly every single upload
        return None
    found = _FHIR_VERSION.search(content_type)
    return found[1] if found is not None else None


def _codings(request: Request) -> list[str]:
    values = request.headers.getlist("content-encoding")
    if not values:  # as for nearly every single upload
        return []
    named = ",".join(values).lower().split(",")
    return [each.strip() for each in named if each.strip() not in ("", "identity")]


async def read_chunks(
    request: Request, receiving: Receiving, limit: int
) -> AsyncGenerator[bytes, None]:
    """The body of a request as it arrives, unpacked. Meanwhile the request does not count as work.

    The caller limits what it unpacks to. Raises a Problem: 413 if a packed body has more than
    `limit` bytes, 408 if it stalls or is too slow, 503 if another credential needs the capacity,
    400 if it is not the gzip that it says.
    """
    if not _codings(request):
        async for chunk in _receive(request, receiving):
            yield chunk
        return
    gunzip = Gunzip()
    packed = 0
    try:
        async for chunk in _receive(request, receiving):
            packed += len(chunk)
            if packed > limit:
                raise too_large(limit)
            for piece in gunzip.feed(chunk):
                yield piece
                # A kilobyte can unpack to a megabyte: others go on between the pieces.
                await asyncio.sleep(0)
        gunzip.end()
    except NotGzipError:
        raise Problem(
            ProblemType.NOT_GZIP,
            "The body is not gzip, or it ends too early. Pack the whole body once.",
            headers={"Connection": "close"},
        ) from None


async def _receive(request: Request, receiving: Receiving) -> AsyncGenerator[bytes, None]:
    settings: Settings = request.app.state.relay.settings
    rate = LeastRate(settings.body_idle_seconds, settings.min_body_bytes_per_second)
    work = work_of(request)
    work.pause()
    chunks = request.stream()
    arrived, waited = 0, 0.0
    while True:
        try:
            async with receiving.within(rate.seconds_left(arrived, waited)):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise _interrupted() if receiving.interrupted else _too_slow(rate) from None
        if chunk is None:
            break
        waited += asyncio.get_running_loop().time() - receiving.since
        arrived += len(chunk)
        if arrived > _QUICK_BYTES:
            await work.received(len(chunk))
        if chunk:
            yield chunk
    await work.resume()


def _too_slow(rate: LeastRate) -> Problem:
    return Problem(
        ProblemType.BODY_TOO_SLOW,
        f"No part of the body arrived for {rate.idle_seconds:g} seconds, or it was slower than"
        f" {rate.bytes_per_second} bytes per second. Send the request again.",
        headers={"Connection": "close"},
    )


def _interrupted() -> Problem:
    return try_later(
        ProblemType.BUSY,
        "The body came slowly, and the API needs its capacity for others. Send the request again"
        " later.",
        Connection="close",
    )


def _announced(request: Request) -> int | None:
    announced = request.headers.get("content-length", "")
    if not (announced.isascii() and announced.isdigit()):
        return None
    digits = announced.lstrip("0") or "0"
    # A number with more digits is too large in any case.
    return int(digits[:_MAX_DIGITS])


async def read_model(request: Request, model: type[_Model]) -> _Model:
    """The body of a JSON request as a model.

    Raises what `read_json_body` raises, UnreadableUpload if an object has a name twice, and
    RequestValidationError if the body does not fit the model.
    """
    credential = work_of(request).credential
    assert credential is not None  # noqa: S101  the route asked for it
    admission: Admission = request.app.state.admission
    async with admission.body(credential, Receiving()) as part:
        body = await read_json_body(request, _MAX_MODEL_BYTES, part)
    if repeated_name(body) is not None:
        raise names_repeated(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise not_json(body) from None
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        ) from None


def documented_body(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI entry of a route that reads this model with `read_model`."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def too_large(limit: int) -> Problem:
    """413 for a body over `limit` bytes."""
    return Problem(
        ProblemType.BODY_TOO_LARGE,
        f"The body has more than {limit} bytes, the limit of this request. Send less at once.",
        # The rest of the body is not read, so the connection cannot be used again.
        headers={"Connection": "close"},
    )
