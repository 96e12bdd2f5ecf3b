"""`uplift uploads`, `batches`, `pause` and `resume`, on a real ledger."""

import re
from collections.abc import AsyncIterator
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from tests import factories
from tests.uplift.cli.command import Cli
from tests.uplift.ledger import rows
from uplift.cli.main import app
from uplift.intake.accept_batch import Entry
from uplift.intake.labels import Labels
from uplift.lifecycle import State
from uplift.problem_types import ProblemType
from uplift.wiring import Relay

_ID = re.compile(r"^ ?([0-9a-f-]{36})\b", re.MULTILINE)


@pytest.fixture
def dead(cli: Cli) -> list[str]:
    """Two dead letters of alice's, refused and expired, and what she and bob have queued."""

    async def make(relay: Relay) -> list[UUID]:
        for name in ("alice", "bob"):
            await factories.user_without_grant(relay, name)
        found = [(await factories.accepted(relay, id=f"o{n}")).upload.id for n in range(3)]
        found.append((await factories.accepted(relay, "bob")).upload.id)
        issue = {
            "severity": "error",
            "code": "required",
            "expression": ["Observation.code"],
            "diagnostics": "This element is required.",
        }
        await rows.bring_to(relay.database, found[0], State.REFUSED, reason="upstream_refused")
        await rows.bring_to(
            relay.database,
            found[1],
            State.EXPIRED,
            reason="gave_up",
            maybe_sent=True,
            issues={"total": 1, "issue": [issue]},
        )
        return found

    return [str(id_) for id_ in cli.on_relay(make)]


def _listed(cli: Cli, *options: str) -> list[str]:
    options = ("--order", "asc", *options)
    shown = _ID.findall(cli("uploads", "list", *options).stdout)
    as_json = [
        orjson.loads(line)["id"]
        for line in cli("uploads", "list", "--json", *options).stdout.splitlines()
    ]
    assert shown == as_json
    return as_json


def test_uploads_are_listed_by_what_is_asked(cli: Cli, dead: list[str]) -> None:
    assert _listed(cli) == dead
    assert _ID.findall(cli("uploads", "list").stdout) == dead[::-1]
    assert _listed(cli, "--dead") == dead[:2]
    assert _listed(cli, "--status", "queued", "--status", "refused") == [dead[0], *dead[2:]]
    assert _listed(cli, "--reason", "gave_up") == dead[1:2]
    assert _listed(cli, "--user", "bob") == dead[3:]
    assert _listed(cli, "--resource-type", "Condition") == []
    assert _listed(cli, "--fhir-version", "DSTU2") == []
    assert _listed(cli, "--updated-since", "2999-01-01") == []
    assert _listed(cli, "--updated-before", "2999-01-01T00:00", "--limit", "4") == dead
    assert "more than 3" in cli("uploads", "list", "--limit", "3").stderr
    cli("uploads", "list", "--user", "nobody", code=1)
    cli("uploads", "list", "--dead", "--status", "queued", code=2)


def test_an_upload_is_shown_with_its_findings_and_never_its_content(
    cli: Cli, dead: list[str]
) -> None:
    shown = cli("uploads", "show", dead[1]).stdout
    assert re.search(r"maybeStored +yes", shown)
    assert "Observation.code: This element is required. [required]" in shown
    told = orjson.loads(cli("uploads", "show", dead[1], "--json").stdout)
    assert (told["status"], told["reason"], told["user"]) == ("expired", "gave_up", "alice")
    assert "8867-4" not in shown + str(told)
    assert "receipt" not in told
    cli("uploads", "show", str(factories.new_id()), code=1)


def test_an_upload_is_shown_with_its_attempts(cli: Cli, dead: list[str]) -> None:
    async def attempt(relay: Relay) -> None:
        async with relay.database.transaction() as connection:
            await connection.execute(
                text("""
                    INSERT INTO attempts (lease_id, upload_id, closed_at, outcome, status_code,
                        duration_ms)
                    VALUES (gen_random_uuid(), CAST(:id AS uuid), now(), 'http_422', 422, 412)
                """),
                {"id": dead[0]},
            )

    assert orjson.loads(cli("uploads", "show", dead[0], "--json").stdout)["attemptList"] == []
    cli.on_relay(attempt)
    assert re.search(r"http_422 +422 +412", cli("uploads", "show", dead[0]).stdout)
    (told,) = orjson.loads(cli("uploads", "show", dead[0], "--json").stdout)["attemptList"]
    assert (told["outcome"], told["statusCode"], told["durationMs"]) == ("http_422", 422, 412)
    assert set(told) == {"openedAt", "closedAt", "outcome", "statusCode", "durationMs"}


def test_named_dead_letters_are_redriven_and_each_refusal_says_why(
    cli: Cli, dead: list[str]
) -> None:
    told = cli("uploads", "redrive", dead[0], dead[2])
    assert "Queued again: 1" in told.stdout  # the other is on its way already
    assert _listed(cli, "--reason", "redriven") == dead[:1]
    cli("uploads", "cancel", dead[2])
    told = cli("uploads", "redrive", dead[2], code=1)
    assert f"{dead[2]}: It was cancelled" in told.stderr


def test_redriving_many_says_how_many_and_asks_first(cli: Cli, dead: list[str]) -> None:
    asked = cli("uploads", "redrive", "--user", "alice", stdin="n\n", code=1)
    assert "Retry 2 uploads?" in asked.output
    assert _listed(cli, "--dead") == dead[:2]
    told = cli("uploads", "redrive", "--status", "refused", stdin="y\n")
    assert "Queued again: 1" in told.stdout
    told = cli("uploads", "redrive", "--all", "--yes", "--json")
    assert orjson.loads(told.stdout) == {"queued": 1, "superseded": 0, "left": {}}
    assert "Queued again: 0" in cli("uploads", "redrive", "--all").stdout  # nothing to ask about
    for wrong in ([], ["--all", "--user", "alice"], [dead[0], "--all"], ["--status", "queued"]):
        cli("uploads", "redrive", *wrong, code=2)


def test_waiting_uploads_are_tried_now(cli: Cli, dead: list[str]) -> None:
    async def delay(relay: Relay) -> None:
        async with relay.database.transaction() as connection:
            await connection.execute(
                text(
                    "UPDATE uploads SET next_attempt_at = now() + interval '1 hour'"
                    " WHERE state = 'queued'"
                )
            )

    cli.on_relay(delay)
    cli("uploads", "try-now", code=2)
    assert cli("uploads", "try-now", dead[2]).stdout == "Due earlier than before: 1.\n"
    assert orjson.loads(cli("uploads", "try-now", "--all", "--json").stdout) == {"tried": 1}


def test_uploads_are_cancelled_by_name_or_all_after_asking(cli: Cli, dead: list[str]) -> None:
    assert "Cancelled: 1" in cli("uploads", "cancel", dead[2]).stdout
    assert "Cancelled: 1" in cli("uploads", "cancel", dead[2]).stdout
    refused = cli("uploads", "cancel", dead[0], "--json", code=1)
    assert orjson.loads(refused.stdout) == {"cancelled": 0, "requested": 0, "tooLate": 1}
    assert dead[0] in refused.stderr
    assert "Cancel 1 uploads" in cli("uploads", "cancel", "--all", stdin="n", code=1).output
    assert "Cancelled: 1" in cli("uploads", "cancel", "--user", "bob", "--yes").stdout
    assert _listed(cli, "--status", "cancelled") == dead[2:]
    actions = [orjson.loads(line) for line in cli("audit", "--json").stdout.splitlines()]
    cancelled = [each["upload"] for each in actions if each["action"] == "upload_cancelled"]
    assert cancelled == dead[2:]


def test_pausing_everybody_asks_first_and_resuming_says_who_still_is(
    cli: Cli, dead: list[str]
) -> None:
    cli("pause", stdin="n\n", code=1)
    assert cli("pause", "--list", "--json").stdout == ""
    assert "bob" in cli("pause", "bob").stdout
    assert "everybody" in cli("pause", "--yes").stdout
    assert cli("pause", "--yes").stdout in cli("pause", stdin="y\n").output
    listed = [orjson.loads(line) for line in cli("pause", "--list", "--json").stdout.splitlines()]
    assert [each["user"] for each in listed] == ["bob", None]
    assert re.search(r"bob.*\(everybody\)", cli("pause", "--list").stdout, re.DOTALL)
    assert re.search(r"paused +yes", cli("users", "show", "alice").stdout)
    told = cli("resume")
    assert "Resumed" in told.stdout
    assert "Still paused: 1" in told.stderr
    cli("resume", "bob")
    assert "no such pause" in cli("resume", "bob").stdout
    assert re.search(r"paused +no", cli("users", "show", "bob").stdout)
    assert "no such user" in cli("pause", "nobody", code=2).output


def test_batches_are_listed_and_shown_with_what_became_of_their_lines(cli: Cli) -> None:
    body = orjson.dumps(factories.resource())

    async def entries() -> AsyncIterator[list[Entry]]:
        yield [Entry(1, body)]
        yield [Entry(2, problem_type=ProblemType.BODY_TOO_LARGE, problem="Too long.")]
        yield [Entry(3, body)]

    async def make(relay: Relay) -> list[str]:
        made = []
        for name in ("alice", "bob"):
            await factories.user_without_grant(relay, name)
            batch = await relay.batch_acceptor.open(
                name, factories.new_id(), Labels(fhir_version="R4")
            )
            made.append(str((await relay.batch_acceptor.add_entries(batch, entries())).id))
        return made

    hers, his = cli.on_relay(make)
    assert _ID.findall(cli("batches", "list").stdout) == [his, hers]
    listed = cli("batches", "list", "--json", "--user", "alice").stdout.splitlines()
    (told,) = map(orjson.loads, listed)
    assert (told["id"], told["total"], told["duplicates"], told["problems"]) == (hers, 3, 1, 1)
    assert _ID.findall(cli("batches", "list", "--limit", "1").stdout) == [his]
    shown = cli("batches", "show", hers, "--lines").stdout
    assert re.search(r"input +complete", shown)
    assert re.search(r"queued +2", shown)
    assert re.search(r"^ ?2 +body_too_large: Too long\.", shown, re.MULTILINE)
    assert re.search(r"^ ?3 +[0-9a-f-]{36} +queued, duplicate", shown, re.MULTILINE)
    lines = cli("batches", "show", hers, "--lines", "--json").stdout.splitlines()
    batch, *rest = map(orjson.loads, lines)
    assert batch["byStatus"] == {"queued": 2}
    assert [line.get("status") for line in rest] == ["queued", None, "queued"]
    cli("batches", "show", str(factories.new_id()), code=1)
    cli("batches", "list", "--user", "nobody", code=1)


def test_the_shell_completes_commands_and_statuses() -> None:
    for typed, position, expected in (
        ("uplift up", "1", "uploads"),
        ("uplift uploads re", "2", "redrive"),
        ("uplift uploads list --status exp", "4", "expired"),
    ):
        completed = CliRunner().invoke(
            app,
            [],
            prog_name="uplift",
            env={
                "_UPLIFT_COMPLETE": "complete_bash",
                "COMP_WORDS": typed,
                "COMP_CWORD": position,
            },
        )
        assert expected in completed.output.split()
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).output


def test_by_user_it_shows_who_has_how_much_unfinished(cli: Cli, dead: list[str]) -> None:
    lines = cli("uploads", "list", "--by", "user", "--json").stdout.splitlines()
    found = [orjson.loads(line) for line in lines]
    assert [(each["user"], each["queued"], each["parked"]) for each in found] == [
        ("alice", 1, 0),
        ("bob", 1, 0),
    ]
    assert all(each["due"] == 1 and each["bytes"] > 0 for each in found)
    shown = cli("uploads", "list", "--by", "user", "--limit", "1").stdout
    assert "alice" in shown
    assert "bob" not in shown
