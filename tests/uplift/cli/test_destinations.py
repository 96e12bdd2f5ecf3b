"""`uplift destinations`, `uplift users move` and `uplift users resend`, on a real ledger."""

import orjson

from tests.uplift.cli.command import Cli
from uplift.ledger import destinations
from uplift.ledger.audit import SYSTEM
from uplift.wiring import Relay


def test_a_person_is_moved_and_asked_for_everything_again(cli: Cli) -> None:
    cli("users", "add", "alice")
    before = orjson.loads(cli("users", "show", "alice", "--json").stdout)
    assert before["destination"] == "oneup"
    # To where they are already: nothing changes.
    assert "oneup" in cli("users", "move", "alice", "--to", "oneup").stdout
    assert orjson.loads(cli("users", "show", "alice", "--json").stdout) == before
    assert "It has: oneup" in cli("users", "move", "alice", "--to", "hapi", code=2).stderr
    cli("users", "resend", "alice")
    after = orjson.loads(cli("users", "show", "alice", "--json").stdout)
    assert after["syncToken"] != before["syncToken"]


def test_an_address_that_changed_is_listed_and_decided_about(cli: Cli) -> None:
    cli("users", "add", "alice")  # it has opened the ledger with the address of the settings
    shown = orjson.loads(cli("destinations", "list", "--json").stdout)
    assert (shown["name"], shown["users"], shown["changed"]) == ("oneup", 1, False)

    async def change(relay: Relay) -> None:
        async with relay.database.transaction() as connection:
            await destinations.change_address(
                connection, "oneup", '{"bases": {}, "tenant": "", "mode": "oneup"}', by=SYSTEM
            )

    cli.on_relay(change)
    listed = cli("destinations", "list", code=1)
    assert "ADDRESS CHANGED" in listed.stdout
    assert "--same-data" in listed.stderr
    cli("destinations", "moved", "oneup", code=2)
    cli("destinations", "moved", "nowhere", "--same-data", code=2)
    before = orjson.loads(cli("users", "show", "alice", "--json").stdout)["syncToken"]
    cli("destinations", "moved", "oneup", "--same-data")
    assert orjson.loads(cli("destinations", "list", "--json").stdout)["changed"] is False
    assert orjson.loads(cli("users", "show", "alice", "--json").stdout)["syncToken"] == before
    assert "1 user(s)" in cli("destinations", "moved", "oneup", "--empty").stdout
    assert orjson.loads(cli("users", "show", "alice", "--json").stdout)["syncToken"] != before
