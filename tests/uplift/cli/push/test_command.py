"""What `uplift push` exits with, and its ways to run: dry, watching, going on after a stop."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from starlette.requests import Request
from starlette.responses import Response
from typer.testing import CliRunner

from tests.uplift.cli.fake_uplift import KEY, FakeUplift, problem, serving
from tests.uplift.cli.push.exports import members, write_zip
from uplift.cli.push.appearing import appearing
from uplift.cli.push.command import push

app = typer.Typer()
app.command()(push)


@pytest.fixture
def fake() -> Iterator[FakeUplift]:
    with serving(FakeUplift()) as serving_fake:
        yield serving_fake


def run(path: Path, fake: FakeUplift, *options: str) -> tuple[int, str, str]:
    words = [str(path), "--user", "alice", "--api", fake.url, "--key", KEY, *options]
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_an_export_is_told_by_hospital_with_its_dates(tmp_path: Path, fake: FakeUplift) -> None:
    code, out, _ = run(write_zip(tmp_path / "export.zip", members()), fake)
    assert code == 0
    assert out.splitlines()[1].strip() == "Hospital & Clinic"
    day = "2020-08-06"
    assert out.splitlines()[2].split() == ["Observation", day, day, "5", "5"]
    (source,) = {each.labels["source"] for each in fake.uploads}
    assert source == "Hospital & Clinic"
    urls = [each.labels["sourceUrl"] for each in fake.uploads]
    assert urls == [f"https://fhir.example.org/Observation/o{number}" for number in range(5)]


def test_a_bad_element_is_told_and_everything_arrived(tmp_path: Path, fake: FakeUplift) -> None:
    content = members("export.xml", "apple_health_export/", "<Record a b/>")
    code, out, _ = run(write_zip(tmp_path / "export.zip", content), fake)
    assert code == 0
    assert "Passed over: export.xml, line" in out


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("empty.zip", b"", "an empty file"),
        ("cut.zip", b"PK\x03\x04" + bytes(60), "archive"),
        ("empty.ndjson", b"\n\n", "an empty file"),
        ("log.ndjson", b'{"eventId":"kickoff"}\n', "the log of a bulk export"),
        ("photo.ndjson", b"\x89PNG\r\n\x1a\n", "picture"),
    ],
)
def test_an_input_without_records_is_no_success(
    tmp_path: Path, fake: FakeUplift, name: str, data: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(data)
    code, _, err = run(tmp_path / name, fake, "--fhir-version", "R4")
    assert code == 2
    assert told in err
    assert fake.uploads == []


def test_an_empty_folder_is_no_success(tmp_path: Path, fake: FakeUplift) -> None:
    code, _, err = run(tmp_path, fake)
    assert code == 2
    assert "no records" in err


def test_a_dry_run_needs_no_server_and_sends_nothing(tmp_path: Path) -> None:
    good = {
        "resourceType": "Observation",
        "id": "1",
        "status": "final",
        "code": {"text": "Pulse"},
        "subject": {"reference": "Patient/1"},
    }
    bad = {"resourceType": "Observation", "id": "2", "status": "final", "code": 7}
    path = tmp_path / "a.ndjson"
    path.write_text("".join(json.dumps(each) + "\n" for each in (good, bad)))
    result = CliRunner().invoke(app, [str(path), "--dry-run", "--fhir-version", "R4"])
    assert result.exit_code == 1
    assert "1 are valid. Nothing was sent." in result.stdout
    assert "rejected Observation a.ndjson:2" in result.stdout
    path.write_text(json.dumps(good))
    assert CliRunner().invoke(app, [str(path), "--dry-run", "--fhir-version", "R4"]).exit_code == 0
    assert CliRunner().invoke(app, [str(path), "--dry-run"]).exit_code == 1
    path.write_text("")
    assert CliRunner().invoke(app, [str(path), "--dry-run"]).exit_code == 2


def test_the_json_report_is_for_this_account_alone(tmp_path: Path, fake: FakeUplift) -> None:
    report = tmp_path / "report.json"
    report.write_text("older, and much longer than what comes now" * 1000)
    report.chmod(0o666)
    path = write_zip(tmp_path / "export.zip", members("export.xml", "", "<Record a b/>"))
    run(path, fake, "--json", str(report))
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    told = json.loads(report.read_text())
    assert told["records"][0]["hospital"] == "Hospital & Clinic"
    assert told["records"][0]["date"] == "2020-08-06"
    assert told["passedOverTotal"] == 1
    assert told["unread"] == []


@pytest.mark.parametrize("status", [401, 503])
def test_an_api_that_goes_away_is_told_with_where_it_stands_and_then_goes_on(
    tmp_path: Path, fake: FakeUplift, status: int
) -> None:
    path = tmp_path / "a.ndjson"
    lines = [json.dumps({"resourceType": "Condition", "id": f"r{n}"}) for n in range(900)]
    path.write_text("\n".join(lines))
    limit = 200

    def away_after_some(request: Request) -> Response | None:
        late = request.method == "POST" and len(fake.uploads) >= limit
        return problem(status, "Away") if late else None

    fake.before = away_after_some
    report = tmp_path / "report.json"
    options = ("--fhir-version", "R4", "--patience", "0.1", "--json", str(report))
    code, _, err = run(path, fake, *options)
    assert code == 3
    assert f"Uplift has {len(fake.uploads)} of the" in err
    assert len(json.loads(report.read_text())["records"]) >= len(fake.uploads)
    fake.before = lambda _: None
    code, out, _ = run(path, fake, *options)
    assert code == 0
    assert "All 900 arrived." in out
    assert len(fake.uploads) == 900


def test_what_appears_in_a_folder_comes_when_it_is_whole(tmp_path: Path) -> None:
    found: list[str] = []
    growing = tmp_path / "growing.ndjson"

    def change(turn: int) -> None:
        if turn == 1:
            (tmp_path / "new.zip").write_bytes(b"x")
            growing.write_bytes(b"1")
            (tmp_path / "half.zip.part").write_bytes(b"x")
            (tmp_path / ".hidden").write_bytes(b"x")
        elif turn == 2:
            growing.write_bytes(b"12")
        elif turn == 5:
            (tmp_path / "folder").mkdir()
            (tmp_path / "folder" / "a.json").write_bytes(b"{}")
        elif turn == 8:
            (tmp_path / "folder" / "b.json").write_bytes(b"{}")

    turns = iter(range(1, 12))

    def sleep(_: float) -> None:
        turn = next(turns, None)
        if turn is None:
            raise KeyboardInterrupt
        change(turn)

    with pytest.raises(KeyboardInterrupt):
        found.extend(path.name for path in appearing(tmp_path, sleep))
    assert found == ["new.zip", "growing.ndjson", "folder", "folder"]


def test_a_watch_pushes_what_appears_until_ctrl_c(tmp_path: Path, fake: FakeUplift) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    program = "import typer; from uplift.cli.push.command import push; typer.run(push)"
    options = ["--watch", "--user", "alice", "--api", fake.url, "--key", KEY]
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )
    try:
        write_zip(folder / "export.zip", members())
        deadline = time.monotonic() + 60
        while not (fake.uploads and all(each.status == "delivered" for each in fake.uploads)):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    finally:
        child.kill()
        child.wait()
    assert "export.zip:" in out
    assert len(fake.uploads) == 5
    assert child.returncode == 0
    assert "Traceback" not in err
