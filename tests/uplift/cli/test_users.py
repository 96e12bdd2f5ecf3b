"""`uplift users` and `uplift audit`, on a real ledger and a simulated 1upHealth."""

import asyncio
import getpass
import re

import orjson
import pytest

from tests import factories
from tests.keys import KEY_RING
from tests.uplift.cli.command import Cli
from uplift.ledger import grants
from uplift.ledger.credentials import find_credential
from uplift.ledger.users import find_user, no_such_user
from uplift.sandbox.testing import SandboxServer
from uplift.wiring import Relay


def test_a_person_is_added_shown_and_listed(cli: Cli, upstream: SandboxServer) -> None:
    added = cli("users", "add", "alice").stdout
    assert "alice" in added
    assert "active" in added
    assert cli("users", "show", "alice").stdout == added
    cli("users", "add", "bob")
    assert re.findall(r"^ ?(alice|bob)\b", cli("users", "list").stdout, re.MULTILINE) == [
        "bob",
        "alice",
    ]
    cli("users", "show", "nobody", code=1)


def test_a_patient_is_named_by_an_id_and_only_where_records_refer_to_one(cli: Cli) -> None:
    cli("users", "add", "alice")
    wrong = cli("users", "patient", "alice", "--id", "Patient/1", code=2)
    assert "1 to 64 characters" in wrong.stderr
    refused = cli("users", "patient", "alice", "--id", "1234", code=2)
    assert "keep their subject" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\nb", "character that nobody sees"),
        ("\u202eecila", "character that nobody sees"),
        ("", "1 to 256 characters"),
        ("a" * 257, "1 to 256 characters"),
    ],
)
def test_a_name_that_the_api_refuses_is_not_added(cli: Cli, name: str, said: str) -> None:
    refused = cli("users", "add", name, code=2)
    assert said in " ".join(refused.stderr.split())
    assert cli("users", "list", "--json").stdout == ""


def test_who_is_not_there_is_told_in_the_same_words_everywhere(cli: Cli) -> None:
    for command, code in (
        (("users", "show", "nobody"), 1),
        (("users", "summary", "nobody"), 1),
        (("uploads", "list", "--user", "nobody"), 1),
        (("users", "resend", "nobody"), 2),
    ):
        said = " ".join(cli(*command, code=code).stderr.split())
        assert said == str(no_such_user())


def test_programs_read_people_and_keys_as_json(cli: Cli) -> None:
    cli("users", "add", "alice")
    listed = orjson.loads(cli("users", "list", "--json").stdout)
    assert listed == orjson.loads(cli("users", "show", "alice", "--json").stdout)
    assert (listed["appUserId"], listed["grant"], listed["paused"]) == ("alice", "active", False)
    summed = orjson.loads(cli("users", "summary", "alice", "--json").stdout)
    assert (summed["complete"], summed["byStatus"]["queued"], summed["byType"]) == (True, 0, {})
    secret = cli("keys", "add", "a-name-that-is-longer-than-a-narrow-column").stdout.strip()
    shown = cli("keys", "list", "--json").stdout
    key = orjson.loads(shown)
    assert (key["name"], key["scopes"]) == (
        "a-name-that-is-longer-than-a-narrow-column",
        ["erase", "read_back", "submit", "users"],
    )
    assert secret not in shown
    assert key["name"] in cli("keys", "list").stdout


def test_whom_to_ask_again_is_listed(cli: Cli) -> None:
    cli("users", "add", "alice")
    cli("users", "add", "bob")

    async def end(relay: Relay) -> None:
        async with relay.database.transaction() as connection:
            user = await find_user(connection, "bob")
            assert user is not None
            await grants.end_grant(connection, user.id, 1)

    cli.on_relay(end)
    listed = cli("users", "list", "--grant", "needs_authorization").stdout
    assert "bob" in listed
    assert "alice" not in listed


def test_the_summary_says_in_its_exit_code_whether_all_is_there(cli: Cli) -> None:
    cli("users", "add", "alice")
    assert "All uploads are finished" in cli("users", "summary", "alice").stdout

    async def submit(relay: Relay) -> None:
        await factories.accepted(relay)

    cli.on_relay(submit)
    shown = cli("users", "summary", "alice", code=1).stdout
    assert re.search(r"^ ?Observation +1", shown, re.MULTILINE)
    assert "queued" in shown


@pytest.mark.parametrize("lines", [("access-1", "refresh-1"), ("access-1",)])
def test_a_grant_is_read_from_standard_input(cli: Cli, lines: tuple[str, ...]) -> None:
    told = cli("users", "bring-grant", "alice", stdin="\n".join(lines) + "\n")
    assert "active" in told.stdout
    assert not any(line in told.output for line in lines)

    async def kept(relay: Relay) -> tuple[str | None, ...]:
        async with relay.database.transaction() as connection:
            user = await find_user(connection, "alice")
            assert user is not None
            grant = await grants.get_grant(connection, user.id, user.key(relay.key_ring))
        assert grant is not None
        assert 7100 < grant.tokens.expires_in <= 7200
        return grant.tokens.access_token, grant.tokens.refresh_token

    assert cli.on_relay(kept) == (*lines, None)[:2]


@pytest.mark.parametrize("stdin", ["", "\n", "caf\u00e9\n", "zq8 zq9\n", "zq8\nzq\x019\n"])
def test_what_is_no_token_is_refused_and_not_repeated(cli: Cli, stdin: str) -> None:
    told = cli("users", "bring-grant", "alice", stdin=stdin, code=2)
    assert "token is not" in told.output
    assert not any(word in told.output for word in stdin.split())
    cli("users", "show", "alice", code=1)


def test_device_tokens_are_made_and_revoked(cli: Cli) -> None:
    cli("users", "add", "alice")
    made = [cli("users", "device-token", "alice", "--seconds", "60") for _ in range(3)]
    secrets = [each.stdout.strip() for each in made]
    ids = [re.findall(r"id is (\S+)\.", each.stderr)[0] for each in made]

    async def valid(relay: Relay) -> list[bool]:
        async with relay.database.transaction() as connection:
            return [
                await find_credential(connection, KEY_RING, secret) is not None
                for secret in secrets
            ]

    assert cli.on_relay(valid) == [True, True, True]
    assert "1" in cli("users", "revoke-device-tokens", "alice", "--id", ids[1]).stdout
    assert cli.on_relay(valid) == [True, False, True]
    assert "2" in cli("users", "revoke-device-tokens", "alice").stdout
    assert cli.on_relay(valid) == [False, False, False]
    cli("users", "add", "bob")
    cli("users", "revoke-device-tokens", "bob", "--id", ids[0], code=1)


def test_erasing_asks_first(cli: Cli) -> None:
    cli("users", "add", "alice")
    asked = cli("users", "erase", "alice", stdin="n\n", code=1)
    assert "for good" in asked.output
    cli("users", "show", "alice")
    assert "Erased" in cli("users", "erase", "alice", stdin="y\n").stdout
    cli("users", "show", "alice", code=1)
    assert "Uplift keeps nothing" in cli("users", "erase", "alice", "--yes", code=2).output
    cli("users", "add", "alice")
    assert "Erased" in cli("users", "erase", "alice", "--yes").stdout


def test_the_trail_names_who_at_this_machine_did_what(cli: Cli) -> None:
    cli("users", "add", "alice")
    cli("users", "bring-grant", "alice", stdin="access\n")
    cli("users", "device-token", "alice")
    cli("users", "revoke-device-tokens", "alice")
    cli("keys", "add", "backend")
    key_id = _key_id(cli)
    cli("keys", "revoke", key_id)
    events = [orjson.loads(line) for line in cli("audit", "--json").stdout.splitlines()]
    assert {event["actor"] for event in events} == {f"cli:{getpass.getuser()}"}
    assert [event["action"] for event in events] == [
        "user_added",
        "grant_obtained",
        "grant_brought",
        "device_token_made",
        "device_token_revoked",
        "api_key_made",
        "api_key_revoked",
    ]
    assert events[-1]["credential"] == key_id
    about_alice = cli("audit", "--user", "alice").stdout.splitlines()
    assert len(about_alice) == 5
    assert all(events[0]["pseudonym"] in line for line in about_alice)
    assert "alice" not in "".join(about_alice)
    assert cli("audit", "--since", "2999-01-01").stdout == ""
    assert len(cli("audit", "--since", "2020-01-01T00:00").stdout.splitlines()) == len(events)
    cli("users", "erase", "alice", "--yes")
    assert len(cli("audit").stdout.splitlines()) == len(events) + 1
    assert "no such user" in cli("audit", "--user", "alice", code=1).output


def _key_id(cli: Cli) -> str:
    return str(re.findall(r"^ ?([0-9a-f-]{36})\s", cli("keys", "list").stdout, re.MULTILINE)[0])


async def test_the_trail_is_compared_with_its_seals(cli: Cli, relay: Relay) -> None:
    async def verify(*words: str, code: int = 0) -> str:
        return (await asyncio.to_thread(cli, "audit", "verify", *words, code=code)).output

    await asyncio.to_thread(cli, "users", "add", "alice")
    assert "There is no seal" in await verify(code=1)
    await relay.sealer.seal()
    assert re.search(r"1 seal\(s\) over \d+ event\(s\) compared. 0 event", await verify())
    await verify("--last", "1")
    assert "The seal 7 is not there" in await verify("--last", "7", code=1)
