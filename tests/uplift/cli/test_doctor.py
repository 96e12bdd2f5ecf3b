"""`uplift doctor` as a command: its table, its JSON, its exit code, and no secret in either."""

import json
import os
import subprocess

from uplift.cli.local.system import command
from uplift.ledger.database import Database
from uplift.sealing import KeyRing
from uplift.settings import Settings

_PARTS = ("ok", "warn", "fail")


def doctor(*arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
    bare = {name: value for name, value in os.environ.items() if not name.startswith("UPLIFT_")}
    return subprocess.run(
        command("doctor", *arguments),
        env={**bare, "COLUMNS": "200", **changed},
        capture_output=True,
        text=True,
        timeout=90,
    )


def environment(settings: Settings) -> dict[str, str]:
    assert settings.database_url is not None
    assert settings.redis_url is not None
    assert settings.master_keys is not None
    return {
        "UPLIFT_DATABASE_URL": settings.database_url.get_secret_value(),
        "UPLIFT_REDIS_URL": settings.redis_url.get_secret_value(),
        "UPLIFT_MASTER_KEYS": settings.master_keys.get_secret_value(),
        "UPLIFT_ONEUP_FHIR_URL": settings.oneup_fhir_url,
        "UPLIFT_ONEUP_TOKEN_URL": settings.oneup_token_url,
        "UPLIFT_ONEUP_USERS_URL": settings.oneup_users_url,
        "UPLIFT_ONEUP_CLIENT_ID": settings.oneup_client_id,
        "UPLIFT_ONEUP_CLIENT_SECRET": settings.oneup_client_secret.get_secret_value(),
    }


def secrets_of(settings: Settings) -> list[str]:
    given = environment(settings)
    return [
        given["UPLIFT_DATABASE_URL"].partition("@")[0].rpartition(":")[2],
        given["UPLIFT_REDIS_URL"].partition("@")[0].rpartition(":")[2],
        given["UPLIFT_MASTER_KEYS"].partition(":")[2],
        given["UPLIFT_ONEUP_CLIENT_SECRET"],
    ]


def test_json_has_a_verdict_and_a_line_for_each_part(
    database: Database, settings: Settings
) -> None:
    done = doctor("--json", **environment(settings))

    assert done.returncode == 1, done.stderr  # no worker runs
    told = json.loads(done.stdout)
    assert told["verdict"] == "fail"
    assert {each["part"] for each in told["findings"]} == {
        "configuration", "postgres", "keys", "work", "retention", "redis", "workers",
        "rate limiter", "FHIR types", "calls", "processes",
        "1upHealth", "destinations",
    }  # fmt: skip
    for each in told["findings"]:
        assert set(each) == {"part", "verdict", "what", "do"}
        assert (each["do"] is None) == (each["verdict"] == "ok")
    for secret in secrets_of(settings):
        assert len(secret) > 8
        assert secret not in done.stdout + done.stderr


def test_the_table_says_the_same_with_what_to_do(database: Database, settings: Settings) -> None:
    done = doctor(**environment(settings))

    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {line[0] for line in lines} <= {*_PARTS, "→"}
    assert ["ok", "keys", "test:", "in", "use,", "0", "user(s)"] in lines
    assert "→ Start the process `bulk`." in done.stdout
    for secret in secrets_of(settings):
        assert secret not in done.stdout + done.stderr


def test_settings_that_are_refused_are_findings_too() -> None:
    done = doctor(
        "--json", UPLIFT_API_PORT="canary", UPLIFT_MASTER_KEYS=KeyRing.new_entry("canary")
    )

    assert done.returncode == 1
    (told,) = json.loads(done.stdout)["findings"]
    assert told["what"].startswith("UPLIFT_API_PORT")
    assert "canary" not in done.stdout + done.stderr
