"""Every answer has a request id, and the log lines of the request have the same."""

import io
import json
import re

import httpx
import pytest
from prometheus_client import REGISTRY

from tests.api.calls import events
from tests.factories import resource
from uplift.api.request_ids import is_safe

_MADE = re.compile("[0-9a-f]{32}")
_SAFE = "2f1b8c0e-6d3a-4f0e-9a51-0c5d3b7e9f10"


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        (_SAFE, True),
        ("0123456789abcdef", True),
        ("A" * 64, True),
        ("", False),
        ("short", False),
        ("A" * 65, False),
        ("jane-doe-1970-01-01", False),
        ("0123456789abcde\u00e9", False),
        ("0123456789abcdef\n", False),
        ("0123456789abcdef ", False),
        ("\u0660" * 16, False),
    ],
)
def test_only_an_id_that_cannot_be_a_name_is_safe_to_log(given: str, safe: bool) -> None:
    assert is_safe(given) is safe


async def test_a_safe_id_of_the_request_is_in_the_answer(anybody: httpx.AsyncClient) -> None:
    response = await anybody.get("/healthz", headers={"X-Request-ID": _SAFE})
    assert response.headers.get_list("X-Request-ID") == [_SAFE]


async def test_without_an_id_or_with_an_unsafe_one_the_api_makes_one_and_logs_no_warning(
    anybody: httpx.AsyncClient, log: io.StringIO
) -> None:
    for headers in ([], [(b"X-Request-ID", b"")], [(b"X-Request-ID", b"jane-doe-\xe9")]):
        response = await anybody.get("/healthz", headers=headers)
        (made,) = response.headers.get_list("X-Request-ID")
        assert _MADE.fullmatch(made)
    assert "jane" not in log.getvalue()
    assert not events(log)


async def test_problems_have_an_id_too(anybody: httpx.AsyncClient) -> None:
    for path in ("/v1/uploads", "/nowhere"):
        response = await anybody.get(path)
        assert response.status_code >= 400
        assert _MADE.fullmatch(response.headers["X-Request-ID"])


async def test_log_lines_of_a_request_have_its_id_and_the_ids_of_what_it_made(
    client: httpx.AsyncClient, alice: str, log: io.StringIO
) -> None:
    response = await client.post(
        "/v1/uploads",
        params={"user": alice, "fhirVersion": "R4"},
        json=resource(id="1"),
        headers={"X-Request-ID": _SAFE},
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
        _SAFE,
        response.json()["id"],
        False,
    )
    assert (many["request"], many["batch"]) == (batch.headers["X-Request-ID"], batch.json()["id"])
    assert (many["uploads"], many["duplicates"], many["problems"]) == (1, 0, 1)


async def test_submissions_and_answers_are_counted(client: httpx.AsyncClient, alice: str) -> None:
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
