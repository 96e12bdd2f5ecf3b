"""The rules of the client, with replies that are only values."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from uplift.client import NoAnswer, NotFinal, NotUplift, Record, TryLater, Upload, calls
from uplift.client.exchange import Sleep, Steps, perform, submit_records, wait_until_final
from uplift.client.messages import NoReply, Reply, Request
from uplift.client.records import BATCH_BYTES, BATCH_RECORDS, Cutter
from uplift.client.retries import Policy

Result = TypeVar("Result")

_POLICY = Policy(patience=60, first_pause=0.5)


class Api:
    """Replies to each request, and notes what was asked and for how long the client slept."""

    def __init__(self, respond: Callable[[Request], Reply | NoReply]) -> None:
        self._respond = respond
        self.requests: list[Request] = []
        self.sleeps: list[float] = []

    def run(self, steps: Steps[Result]) -> Result:
        outcome: Reply | NoReply | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: Result = end.value
                return result
            outcome = None
            if isinstance(step, Sleep):
                self.sleeps.append(step.seconds)
            else:
                self.requests.append(step)
                outcome = self._respond(step)


def _scripted(*replies: Reply | NoReply) -> Api:
    waiting = list(replies)
    return Api(lambda _: waiting.pop(0))


def _upload(status: str = "queued", **more: Any) -> dict[str, Any]:
    return {
        "id": "u-1",
        "status": status,
        "final": status == "delivered",
        "user": "alice",
        "fhirVersion": "R4",
        "resourceType": "Condition",
        "createdAt": "2026-11-23T10:00:00Z",
        "updatedAt": "2026-11-23T10:00:00Z",
        "statusUrl": "/v1/uploads/u-1",
        **more,
    }


def _json(content: object, status: int = 200, **headers: str) -> Reply:
    return Reply(status, headers, json.dumps(content).encode())


def _problem(status: int, **headers: str) -> Reply:
    content = {"title": "Title", "detail": "Detail.", "status": status}
    return _json(content, status, **{"content-type": "application/problem+json", **headers})


def test_a_repeated_submission_is_the_same_request() -> None:
    api = _scripted(
        NoReply("the connection breaks", maybe_received=True),
        _problem(503, **{"retry-after": "3"}),
        _json(_upload(), 202),
    )
    upload = api.run(perform(calls.submit(b"{}", fhir_version="R4"), _POLICY))
    assert upload.id == "u-1"
    assert len(api.requests) == 3
    assert len({each.headers["Idempotency-Key"] for each in api.requests}) == 1
    assert 0 <= api.sleeps[0] <= 0.5
    assert 3 <= api.sleeps[1] <= 4


def test_the_last_reply_is_the_error() -> None:
    api = _scripted(_problem(503, **{"retry-after": "3600"}))
    with pytest.raises(TryLater) as failure:
        api.run(perform(calls.upload("u-1"), _POLICY))
    assert failure.value.retry_after == 3600
    api = _scripted(NoReply("nothing listens there", maybe_received=False))
    with pytest.raises(NoAnswer, match="nothing listens there"):
        api.run(perform(calls.upload("u-1"), Policy(patience=0)))


def _wait(api: Api, seconds: float = 60.0) -> Upload:
    return api.run(wait_until_final("u-1", seconds, _POLICY))


def test_long_polls_ask_for_a_change() -> None:
    api = _scripted(
        _json(_upload("queued"), etag='"1"'),
        _json(_upload("parked"), etag='"2"'),
        _json(_upload("delivered"), etag='"3"'),
    )
    assert _wait(api).status == "delivered"
    assert [each.headers.get("If-None-Match") for each in api.requests] == [None, '"1"', '"2"']
    assert all("wait=30" in each.target or "wait=29" in each.target for each in api.requests)
    assert api.sleeps == []


def test_a_long_poll_that_ends_early_without_news_waits_as_long_as_it_says() -> None:
    api = _scripted(
        _json(_upload("queued"), etag='"1"'),
        Reply(304, {"etag": '"1"', "retry-after": "4"}, b""),
        _json(_upload("delivered"), etag='"2"'),
    )
    assert _wait(api).final
    assert api.sleeps == [4]


def test_when_the_time_is_up_the_error_has_the_latest_status() -> None:
    api = _scripted(_json(_upload("sending"), etag='"1"'))
    with pytest.raises(NotFinal, match="u-1 is sending") as failure:
        _wait(api, 0.0)
    assert failure.value.upload.status == "sending"


def _accept(request: Request) -> Reply:
    found = [
        {"line": number, "id": json.loads(line)["recordId"], "status": "queued", "duplicate": False}
        for number, line in enumerate(request.body.splitlines(), start=1)
    ]
    return _json({"lines": found}, 202)


def _records(count: int) -> list[Record]:
    return [Record(b'{"a":\r\n1}', "R4", record_id=str(number)) for number in range(count)]


def test_a_record_is_one_line_of_a_batch() -> None:
    api = Api(_accept)
    results = api.run(submit_records(_records(2), _POLICY, user="alice", fhir_version="DSTU2"))
    assert [(each.id, each.status, each.settled) for each in results] == [
        ("0", "queued", False),
        ("1", "queued", False),
    ]
    [request] = api.requests
    assert request.target == "/v1/batches?user=alice&fhirVersion=DSTU2"
    assert request.body.splitlines(keepends=True)[0] == (
        b'{"fhirVersion":"R4","recordId":"0","resource":{"a":  1}}\n'
    )


def test_a_line_that_is_not_taken_says_why() -> None:
    problem = {"status": 400, "title": "Bad", "detail": "It is no JSON.", "code": "not_json"}
    api = _scripted(_json({"lines": [{"line": 1, "problem": problem}]}, 202))
    [result] = api.run(submit_records(_records(1), _POLICY))
    assert result.id is None
    assert (str(result.problem), result.problem and result.problem.code) == (
        "400: It is no JSON.",
        "not_json",
    )


@pytest.mark.parametrize("status", [400, 413, 415, 500])
def test_one_record_at_fault_does_not_stop_the_others(status: int) -> None:
    def respond(request: Request) -> Reply:
        return _problem(status) if b'"recordId":"5"' in request.body else _accept(request)

    results = Api(respond).run(submit_records(_records(9), _POLICY))
    assert [each.record.record_id for each in results] == [str(number) for number in range(9)]
    problems = {each.record.record_id: str(each.problem) for each in results if each.problem}
    assert problems == {"5": f"{status}: Detail."}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_caller_is_not_asked_for_in_halves(status: int) -> None:
    api = _scripted(_problem(status))
    with pytest.raises(Exception, match=str(status)):
        api.run(submit_records(_records(9), _POLICY))


def test_an_answer_that_leaves_lines_out_is_not_believed() -> None:
    lines = [{"line": 1, "id": "u-1", "status": "queued", "duplicate": False}]
    with pytest.raises(NotUplift):
        _scripted(_json({"lines": lines}, 202)).run(submit_records(_records(2), _POLICY))


def test_a_stream_is_cut_by_records_and_by_bytes() -> None:
    cutter: Cutter[int] = Cutter()
    sizes = [1] * (BATCH_RECORDS + 1) + [BATCH_BYTES - 1, 1, 3 * BATCH_BYTES]
    pieces = [piece for size in sizes if (piece := cutter.add(size, size))]
    pieces.append(cutter.rest())
    assert pieces == [
        [1] * BATCH_RECORDS,
        [1, BATCH_BYTES - 1],
        [1],
        [3 * BATCH_BYTES],
    ]
    assert cutter.rest() == []
