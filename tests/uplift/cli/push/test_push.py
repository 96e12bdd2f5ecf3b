"""`uplift push` from the command line and from code, against an API over real HTTP."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from starlette.requests import Request
from starlette.responses import Response
from typer.testing import CliRunner

from tests.uplift.cli.fake_uplift import KEY, FakeUplift, Upload, problem, serving
from uplift.cli.push.client import ApiClient, ApiRefused
from uplift.cli.push.command import push
from uplift.cli.push.push import push_records
from uplift.cli.push.records import UnreadableSource
from uplift.cli.push.result import ResponseKind

app = typer.Typer()
app.command()(push)


@pytest.fixture
def fake() -> Iterator[FakeUplift]:
    with serving(FakeUplift()) as serving_fake:
        yield serving_fake


def ndjson(folder: Path, count: int, *more: str) -> Path:
    path = folder / "records.ndjson"
    lines = [
        json.dumps(
            {
                "fhirVersion": "R4" if number % 2 else "DSTU2",
                "source": "org.example.a",
                "recordId": f"r{number}",
                "resource": {
                    "resourceType": "Condition" if number % 3 else "Observation",
                    "id": f"r{number}",
                },
            }
        )
        for number in range(count)
    ]
    path.write_text("\n".join([*lines, *more]) + "\n")
    return path


def run(path: Path, fake: FakeUplift, *options: str, key: str = KEY) -> tuple[int, str, str]:
    result = CliRunner().invoke(
        app, [str(path), "--user", "alice", "--api", fake.url, "--key", key, *options]
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def reject(upload: Upload) -> None:
    upload.status = "rejected"
    upload.issues = {
        "total": 2,
        "issue": [
            {
                "severity": "error",
                "code": "required",
                "expression": ["Condition.subject"],
                "diagnostics": "Required and missing.",
            }
        ],
    }


def test_everything_arrives_and_the_exit_code_says_so(tmp_path: Path, fake: FakeUplift) -> None:
    fake.empty_searches = 2
    code, out, err = run(ndjson(tmp_path, 7), fake)
    assert code == 0
    assert len(fake.uploads) == 7
    assert out.splitlines() == [
        "Type           delivered  total",
        "org.example.a                  ",
        "  Condition            4      4",
        "  Observation          3      3",
        "All                    7      7",
        "All 7 arrived.",
    ]
    assert "Sent 7 of 7" in err
    assert "7 of 7 have an outcome" in err


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_force_is_said_of_every_record(
    tmp_path: Path, fake: FakeUplift, options: tuple[str, ...]
) -> None:
    run(ndjson(tmp_path, 7), fake, *options)
    assert [each.labels.get("force", False) for each in fake.uploads] == [bool(options)] * 7


def test_running_again_sends_nothing_again_and_says_so(tmp_path: Path, fake: FakeUplift) -> None:
    path = ndjson(tmp_path, 7)
    run(path, fake)
    code, out, _ = run(path, fake)
    assert code == 0
    assert len(fake.uploads) == 7
    assert "duplicate" in out
    assert "delivered" not in out


def test_an_interrupted_push_is_resumed_by_running_it_again(
    tmp_path: Path, fake: FakeUplift
) -> None:
    path = ndjson(tmp_path, 900)
    limit = 200

    def down_after_some(request: Request) -> Response | None:
        wanted = request.method == "POST" and len(fake.uploads) >= limit
        return problem(401, "Unauthorized") if wanted else None

    fake.before = down_after_some
    code, _, err = run(path, fake)
    assert code == 3
    assert "Uplift has 200 of the" in err
    assert "Run the same command again to go on" in err
    limit = 1000
    code, out, _ = run(path, fake)
    assert code == 0
    assert "All 900 arrived." in out
    assert sorted(upload.labels["recordId"] for upload in fake.uploads) == sorted(
        f"r{number}" for number in range(900)
    )


def test_what_was_rejected_is_told_with_record_element_and_reason(
    tmp_path: Path, fake: FakeUplift
) -> None:
    fake.judge = lambda upload: (
        reject(upload)
        if upload.labels["recordId"] == "r4"
        else setattr(upload, "status", "delivered")
    )
    code, out, _ = run(ndjson(tmp_path, 7), fake)
    assert code == 1
    assert "rejected Condition records.ndjson:5 (org.example.a)" in out
    assert "error Condition.subject: Required and missing. [required]" in out
    assert "2 issues in all" in out


def test_the_same_rejected_bytes_are_still_rejected_when_pushed_again(
    tmp_path: Path, fake: FakeUplift
) -> None:
    fake.judge = reject
    path = ndjson(tmp_path, 1)
    run(path, fake)
    code, out, _ = run(path, fake)
    assert code == 1
    assert "rejected Observation records.ndjson:1" in out
    assert "Condition.subject" in out


def test_what_cannot_be_read_is_skipped_told_and_counts_as_not_arrived(
    tmp_path: Path, fake: FakeUplift
) -> None:
    code, out, _ = run(ndjson(tmp_path, 2, "nonsense"), fake)
    assert code == 1
    assert len(fake.uploads) == 2
    assert "skipped unknown records.ndjson:3: not a JSON object with a resourceType" in out


def test_a_record_that_the_api_does_not_take_does_not_stop_the_others(
    tmp_path: Path, fake: FakeUplift
) -> None:
    fake.judge_line = lambda envelope: (
        {"status": 413, "title": "Too large", "detail": "At most 8 bytes."}
        if envelope["recordId"] == "r1"
        else None
    )
    code, out, _ = run(ndjson(tmp_path, 3), fake)
    assert code == 1
    assert len(fake.uploads) == 2
    assert (
        "not accepted Condition records.ndjson:2 (org.example.a): the API responds 413:"
        " At most 8 bytes." in out
    )


@pytest.mark.parametrize("status", [400, 413, 500])
def test_a_batch_that_is_refused_as_a_whole_is_sent_in_parts(
    tmp_path: Path, fake: FakeUplift, status: int
) -> None:
    handle = fake._submit

    async def refuse(request: Request) -> Response:
        if b'"r77"' in await request.body():
            return problem(status, "No good")
        return await handle(request)

    fake._submit = refuse  # type: ignore[method-assign]
    with serving(fake):
        code, out, _ = run(ndjson(tmp_path, 100), fake)
    assert code == 1
    assert len(fake.uploads) == 99
    assert (
        f"not accepted Condition records.ndjson:78 (org.example.a): the API responds {status}"
        in out
    )


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        ("superseded", 0, "superseded"),
        ("refused", 1, "refused Observation records.ndjson:1 (org.example.a): id_collision"),
        ("expired", 1, "expired Observation"),
        ("cancelled", 1, "cancelled Observation"),
        ("parked", 1, "until the user authorises Uplift at 1upHealth again"),
    ],
)
def test_each_final_status_is_told(
    tmp_path: Path, fake: FakeUplift, status: str, code: int, told: str
) -> None:
    def judge(upload: Upload) -> None:
        upload.status = status
        upload.reason = "id_collision"

    fake.judge = judge
    found, out, _ = run(ndjson(tmp_path, 1), fake)
    assert found == code
    assert told in out


def test_waiting_ends_when_told_and_says_what_is_still_under_way(
    tmp_path: Path, fake: FakeUplift
) -> None:
    fake.empty_searches = 10_000
    code, out, _ = run(ndjson(tmp_path, 3), fake, "--wait-seconds", "0")
    assert code == 1
    assert "Uplift has stored 3 and is still delivering them" in out


def test_without_waiting_acceptance_is_enough(tmp_path: Path, fake: FakeUplift) -> None:
    fake.empty_searches = 10_000
    code, out, _ = run(ndjson(tmp_path, 3), fake, "--no-wait")
    assert code == 0
    assert "accepted" in out
    assert {method for method, _, _ in fake.requests[1:]} == {"POST"}


def test_the_json_report_tells_every_record(tmp_path: Path, fake: FakeUplift) -> None:
    fake.judge = lambda upload: (
        reject(upload)
        if upload.labels["recordId"] == "r1"
        else setattr(upload, "status", "delivered")
    )
    report = tmp_path / "report.json"
    code, _, _ = run(ndjson(tmp_path, 3, "{}"), fake, "--json", str(report))
    told = json.loads(report.read_text())
    assert code == 1
    assert told["arrived"] is False
    assert told["totals"] == {"delivered": 2, "rejected": 1, "skipped": 1}
    assert told["byType"]["Condition"] == {"delivered": 1, "rejected": 1}
    broken = next(each for each in told["records"] if each["outcome"] == "rejected")
    assert broken["label"] == "records.ndjson:2"
    assert broken["recordId"] == "r1"
    assert broken["uploadId"] in {upload.id for upload in fake.uploads}
    assert broken["issues"]["issue"][0]["expression"] == ["Condition.subject"]


def test_off_a_terminal_nothing_steers_one(tmp_path: Path, fake: FakeUplift) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(
            "export.xml",
            '<HealthData><ClinicalRecord type="[red]x" identifier="a" sourceName="b&#155;31m" '
            'fhirVersion="R4" resourceFilePath="/clinical-records/\u202e[bold].json"/>'
            "</HealthData>",
        )
    code, out, err = run(path, fake)
    assert code == 1
    assert "[red]x" in out
    assert "[bold].json" in out
    assert all(char.isprintable() or char == "\n" for char in out + err)


@pytest.mark.parametrize("listed", [True, False])
def test_outcomes_are_found_on_later_pages_or_one_by_one(
    tmp_path: Path, fake: FakeUplift, *, listed: bool
) -> None:
    fake.empty_searches = 3
    fake.page_size = 4
    fake.listed = listed
    code, out, _ = run(ndjson(tmp_path, 30), fake)
    assert code == 0
    assert "All 30 arrived." in out


def test_outcomes_of_many_cost_few_requests(tmp_path: Path, fake: FakeUplift) -> None:
    path = ndjson(tmp_path, 1200)
    assert run(path, fake)[0] == 0
    empty_searches = [path for method, path, _ in fake.requests if method == "GET"]
    assert len(empty_searches) <= 10


def test_pages_before_the_first_open_upload_are_not_read_again(
    tmp_path: Path, fake: FakeUplift
) -> None:
    fake.page_size = 10
    run(ndjson(tmp_path, 100), fake)
    fake.requests.clear()
    fake.empty_searches = 2
    new = tmp_path / "new.json"
    new.write_bytes(b'{"resourceType": "Condition", "id": "new"}')
    assert run(new, fake, "--fhir-version", "R4")[0] == 0
    assert len([query for method, _, query in fake.requests if "after=50" in query]) == 1


@pytest.mark.parametrize(
    ("options", "key", "expected", "told"),
    [
        ((), "wrong", 3, "UPLIFT_API_KEY"),
        ((), "", 2, "UPLIFT_API_KEY"),
        ((), "a\nb", 2, "line break"),
        (("--user", "bob"), KEY, 3, "no user 'bob'"),
        (("--user", ""), KEY, 2, "--user"),
        (("--api", "http://127.0.0.1:1"), KEY, 3, "uplift up"),
        (("--api", "127.0.0.1:8080"), KEY, 2, "http://"),
        (("--api", "http://[::"), KEY, 2, "not a URL"),
        (("--api", "http://api.example.org"), KEY, 2, "--allow-http"),
        (("--json", "nowhere/report.json"), KEY, 2, "no such folder"),
        (("--fhir-version", "R5"), KEY, 2, "DSTU2, STU3 or R4"),
        (("--watch",), KEY, 2, "not a folder"),
    ],
)
def test_what_makes_a_push_impossible_is_told_with_what_to_do(
    tmp_path: Path, fake: FakeUplift, options: tuple[str, ...], key: str, expected: int, told: str
) -> None:
    code, _, err = run(ndjson(tmp_path, 1), fake, *options, key=key)
    assert code == expected
    assert told in err
    assert fake.uploads == []


def test_a_path_that_does_not_exist_is_a_usage_error(tmp_path: Path, fake: FakeUplift) -> None:
    assert run(tmp_path / "gone.zip", fake)[0] == 2


def test_an_input_without_a_record_is_a_usage_error(tmp_path: Path, fake: FakeUplift) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("photo.jpg", b"")
    code, _, err = run(path, fake)
    assert code == 2
    assert "Export All Health Data" in err


def test_an_input_that_breaks_off_is_sent_as_far_as_it_goes(
    tmp_path: Path, fake: FakeUplift
) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(
            "export.xml",
            '<HealthData><ClinicalRecord type="Condition" identifier="a" sourceName="b" '
            'fhirVersion="R4" resourceFilePath="/clinical-records/a.json"/>'
            + " " * 300_000
            + "<oops",
        )
        zipped.writestr("clinical-records/a.json", b'{"resourceType": "Condition"}')
    code, out, _ = run(path, fake)
    assert code == 1
    assert len(fake.uploads) == 1
    assert "Not read: export.xml, line 1: it ends without </HealthData>" in out


async def test_push_records_gives_the_result_to_code(tmp_path: Path, fake: FakeUplift) -> None:
    async with ApiClient(fake.url, KEY) as client:
        result = await push_records(client, ndjson(tmp_path, 5), user="alice")
        with pytest.raises(ApiRefused):
            await push_records(client, ndjson(tmp_path, 5), user="bob")
        with pytest.raises(UnreadableSource):
            await push_records(client, tmp_path / "gone.ndjson", user="alice")
    assert result.arrived
    assert result.totals() == {ResponseKind.DELIVERED: 5}
    assert {each.upload_id for each in result.records} == {each.id for each in fake.uploads}


async def test_no_more_batches_are_under_way_than_asked_for(
    tmp_path: Path, fake: FakeUplift
) -> None:
    under_way, limit = 0, 0
    handle = fake._submit
    three = asyncio.Barrier(3)  # 15 batches, so the last ones do not wait for others

    async def together(request: Request) -> Response:
        nonlocal under_way, limit
        under_way += 1
        limit = max(limit, under_way)
        await three.wait()
        under_way -= 1
        return await handle(request)

    fake._submit = together  # type: ignore[method-assign]
    with serving(fake):
        async with ApiClient(fake.url, KEY) as client:
            await push_records(client, ndjson(tmp_path, 3000), user="alice", concurrency=3)
    assert limit == 3


async def test_large_records_are_not_kept_in_memory(tmp_path: Path, fake: FakeUplift) -> None:
    path = tmp_path / "large.ndjson"
    with path.open("w") as file:
        for number in range(60):
            file.write(
                f'{{"resourceType":"DocumentReference","id":"{number}","d":"{"x" * 1_000_000}"}}\n'
            )
    fake.before = lambda _: problem(413, "Content Too Large")
    fake_check = iter([None])
    fake.before = lambda _: next(fake_check, problem(413, "Content Too Large"))
    async with ApiClient(fake.url, KEY) as client:
        tracemalloc.start()
        try:
            result = await push_records(
                client, path, user="alice", fhir_version="R4", concurrency=2
            )
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert result.totals() == {ResponseKind.NOT_ACCEPTED: 60}
    # The API's side of each request is in this process, too.
    assert peak < 30_000_000


def test_ctrl_c_ends_a_push_with_a_word_on_how_to_resume(tmp_path: Path, fake: FakeUplift) -> None:
    fake.empty_searches = 1_000_000
    program = "import typer; from uplift.cli.push.command import push; typer.run(push)"
    options = ["--user", "alice", "--api", fake.url, "--key", KEY]
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(ndjson(tmp_path, 3)), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )
    try:
        while not any(path == "/v1/uploads" and "limit=500" in q for _, path, q in fake.requests):
            assert child.poll() is None
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=20)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert "Run the same command again to go on" in err
    assert "Traceback" not in err
