"""Traces: from the request to 1upHealth's answer, without anything of a person or a record."""

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from tests import factories
from tests.api.calls import bearer, make_keys
from tests.api.serving import ApiServer
from tests.factories import resource
from tests.uplift.collector import Collector, attributes
from tests.worker.entries import BULK, WORKER, command, environment
from uplift import traces
from uplift.cli.local.child_process import ChildProcess
from uplift.errors import ConfigurationError
from uplift.ledger.database import Database
from uplift.logs import FIELDS
from uplift.settings import Settings
from uplift.wiring import open_relay

CANARY = "canary-5f3e"
_CALLERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


async def _post(url: str, body: object, headers: dict[str, str]) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.post(url, json=body, headers=headers)).status_code


@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
async def test_one_trace_leads_from_the_request_to_1uphealth_s_answer_and_holds_no_person(
    settings: Settings, database: Database, tmp_path: Path, batch: bool
) -> None:
    async with open_relay(settings) as relay:
        await factories.user(relay, CANARY)
    key = (await make_keys(database)).backend
    body = {**resource(), "id": CANARY, "note": [{"text": CANARY}]}
    with Collector() as collector:
        traced = settings.model_copy(update={"traces_url": collector.url})
        env = {"UPLIFT_TRACES_URL": collector.url}
        worker = ChildProcess(
            "worker",
            command(BULK if batch else WORKER),
            log=tmp_path / "worker.log",
            env=environment(settings, **env),
        )
        worker.start()
        try:
            with ApiServer(traced) as api:
                answer = await _post(
                    api.url
                    + f"/v1/{'batches' if batch else 'uploads'}?user={CANARY}&fhirVersion=R4",
                    {"resourceType": "Bundle", "type": "batch", "entry": [{"resource": body}]}
                    if batch
                    else body,
                    {**bearer(key), "traceparent": _CALLERS},
                )
                assert answer == 202
                spans = await asyncio.to_thread(collector.until, "request", "attempt", "call")
        finally:
            await asyncio.to_thread(worker.stop)
    assert {f"{span.trace_id.hex()}" for _, span in spans} == {_CALLERS.split("-")[1]}
    [(api_name, request)] = [each for each in spans if each[1].name == "request"]
    [(worker_name, attempt)] = [each for each in spans if each[1].name == "attempt"]
    [(_, call)] = [each for each in spans if each[1].name == "call"]
    assert (api_name, worker_name) == ("uplift-api", "uplift-bulk" if batch else "uplift-worker")
    assert request.parent_span_id.hex() == _CALLERS.split("-")[2]
    assert attempt.parent_span_id == request.span_id
    assert call.parent_span_id == attempt.span_id
    assert attributes(request) == {
        "method": "POST",
        "route": "/v1/batches" if batch else "/v1/uploads",
        "status": 202,
    }
    found = attributes(attempt)
    assert found.pop("upload")
    assert found == {"attempt": 1, "state": "delivered", "outcome": "stored"}
    assert attributes(call) == {"status": 201, "outcome": "http_201"}
    assert FIELDS.issuperset(each for _, span in spans for each in attributes(span))
    assert not any(CANARY.encode() in each for each in collector.received)


async def test_by_default_nothing_is_traced_and_nothing_of_it_is_kept(
    settings: Settings, database: Database
) -> None:
    async with open_relay(settings) as relay:
        await factories.user(relay)
        with traces.span("request", route="/"):
            await factories.accepted(relay)
    async with database.transaction() as connection:
        assert await connection.scalar(text("SELECT trace_parent FROM uploads")) is None


def test_opentelemetry_is_not_imported_unless_it_is_used() -> None:
    code = (
        "import sys, uplift.api.app, uplift.worker.process;"
        "print({'opentelemetry.sdk.trace', 'opentelemetry.exporter'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"


def test_a_span_holds_what_a_log_line_may_hold_and_never_the_text_of_an_error() -> None:
    with Collector() as collector:
        with traces.tracing(Settings(traces_url=collector.url), "api"):
            with suppress(ValueError), traces.span("request", route="/", person=CANARY) as span:
                span.note(user="an id", body=CANARY)
                raise ValueError(CANARY)
            with traces.part("call"):
                pass  # outside of any trace, it is none
        [(_, sent)] = collector.spans
        assert attributes(sent) == {"route": "/", "user": "an id"}
        assert sent.status.code == 2  # an error
        assert not sent.events
        assert not any(CANARY.encode() in each for each in collector.received)


def test_only_the_share_is_sent_whatever_the_caller_says() -> None:
    sampled = _CALLERS[:-2] + "01"
    with Collector() as collector:
        settings = Settings(traces_url=collector.url, traces_share=0.0)
        with traces.tracing(settings, "api"), traces.span("request", parent=sampled):
            assert traces.current() is None
        assert not collector.spans


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "garbage",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        f"{_CALLERS}-more",
        "ff" + _CALLERS[2:],
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(parent: str) -> None:
    with (
        Collector() as collector,
        traces.tracing(Settings(traces_url=collector.url), "api"),
        traces.span("request", parent=parent),
    ):
        own = traces.current()
        assert own is not None
        assert _CALLERS.split("-")[1] not in own


def test_a_collector_that_is_away_delays_the_end_by_two_seconds_at_most() -> None:
    with Collector() as collector:
        away = collector.url
    with traces.tracing(Settings(traces_url=away), "api"), traces.span("request"):
        pass


def test_without_the_libraries_the_start_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces, "find_spec", lambda _: None)
    traces.check(Settings())
    with pytest.raises(ConfigurationError, match=r"uplift\[traces\]"):
        traces.check(Settings(traces_url="http://127.0.0.1:4318/v1/traces"))
