"""Every answer has a request id, and what is logged on the way has it too."""

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from tests.factories import resource

_MADE = re.compile("[0-9a-f]{32}")


@pytest.fixture
def log(anybody: httpx.AsyncClient) -> Iterator[io.StringIO]:
    """What the app logs from now on."""
    (handler,) = [
        each
        for each in logging.getLogger().handlers
        if type(each) is logging.StreamHandler and "ProcessorFormatter" in str(each.formatter)
    ]
    written = io.StringIO()
    before = handler.setStream(written)
    yield written
    if before is not None:
        handler.setStream(before)


def events(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


@pytest.mark.parametrize(
    "given",
    ["2f1b8c0e-6d3a-4f0e-9a51-0c5d3b7e9f10", "0123456789abcdef", "A" * 64],
)
async def test_an_id_that_came_with_the_request_goes_back(
    anybody: httpx.AsyncClient, given: str
) -> None:
    response = await anybody.get("/healthz", headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] == given


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "short",
        "A" * 65,
        "jane-doe-1970-01-01",
        "0123456789abcde\u00e9",
        "0123456789abcdef\n",
    ],
)
async def test_without_an_id_or_with_one_that_could_be_a_name_one_is_made(
    anybody: httpx.AsyncClient, given: str | None
) -> None:
    headers = [] if given is None else [(b"X-Request-ID", given.encode("latin-1"))]
    response = await anybody.get("/healthz", headers=headers)
    assert _MADE.fullmatch(response.headers["X-Request-ID"])


async def test_problems_have_it_too(anybody: httpx.AsyncClient) -> None:
    for path in ("/v1/uploads", "/nowhere"):
        response = await anybody.get(path)
        assert response.status_code >= 400
        assert _MADE.fullmatch(response.headers["X-Request-ID"])


async def test_lines_of_a_request_hold_its_id_and_the_ids_of_what_it_made(
    client: httpx.AsyncClient, alice: str, log: io.StringIO
) -> None:
    response = await client.post(
        "/v1/uploads", params={"user": alice, "fhirVersion": "R4"}, json=resource(id="1")
    )
    batch = await client.post(
        "/v1/batches",
        params={"user": alice},
        content=json.dumps({"fhirVersion": "R4", "resource": resource(id="2")}) + "\nnothing\n",
        headers={"Content-Type": "application/x-ndjson"},
    )
    single, many = (
        each for each in events(log) if each["event"] in ("upload_accepted", "batch_accepted")
    )
    assert (single["request"], single["upload"], single["duplicate"]) == (
        response.headers["X-Request-ID"],
        response.json()["id"],
        False,
    )
    assert (many["request"], many["batch"]) == (batch.headers["X-Request-ID"], batch.json()["id"])
    assert (many["uploads"], many["duplicates"], many["problems"]) == (1, 0, 1)


async def test_what_is_sent_and_what_is_answered_is_counted(
    client: httpx.AsyncClient, alice: str
) -> None:
    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def now() -> list[float]:
        return [
            counted("uplift_submissions_total", kind="single", outcome="accepted"),
            counted("uplift_submissions_total", kind="single", outcome="duplicate"),
            counted("uplift_http_responses_total", status="202"),
            counted("uplift_http_responses_total", status="404"),
        ]

    before = now()
    for _ in range(2):
        await client.post(
            "/v1/uploads", params={"user": alice, "fhirVersion": "R4"}, json=resource(id="1")
        )
    await client.get("/nowhere")
    assert [after - was for after, was in zip(now(), before, strict=True)] == [1, 1, 2, 1]
