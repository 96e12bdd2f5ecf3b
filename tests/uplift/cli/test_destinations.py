"""`uplift destinations`, `uplift users move` and `uplift users resend`, on a real ledger."""

from pathlib import Path

import orjson
import pytest

from tests.keys import ID_KEY
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
    # What is logged of the address is not in the output.
    before = orjson.loads(cli("users", "show", "alice", "--json").stdout)["syncToken"]
    cli("destinations", "moved", "oneup", "--same-data")
    assert orjson.loads(cli("destinations", "list", "--json").stdout)["changed"] is False
    assert orjson.loads(cli("users", "show", "alice", "--json").stdout)["syncToken"] == before
    assert "1 user(s)" in cli("destinations", "moved", "oneup", "--empty").stdout
    assert orjson.loads(cli("users", "show", "alice", "--json").stdout)["syncToken"] != before


def test_a_new_key_is_written_once_and_shown_for_the_server(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    made = cli("destinations", "new-key", str(file))
    (key,) = orjson.loads(made.stdout)["keys"]
    assert (key["alg"], "d" in key) == ("ES384", False)
    again = cli("destinations", "new-key", str(file), code=2)
    assert "Name another file" in " ".join(again.stderr.split())
    assert "No such file" in cli("destinations", "new-key", str(tmp_path / "a/b"), code=2).stderr


def test_the_keys_of_a_login_are_shown_by_its_destination(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has no keys" in cli("destinations", "jwks", code=1).stderr
    assert "There are: oneup" in cli("destinations", "jwks", "clinic", code=2).stderr
    signs, other = tmp_path / "signs.pem", tmp_path / "other.pem"
    made = [
        orjson.loads(cli("destinations", "new-key", str(file)).stdout)["keys"][0]
        for file in (signs, other)
    ]
    for name, value in {
        "UPLIFT_DESTINATION": "hapi",
        "UPLIFT_ID_KEY": ID_KEY,
        "UPLIFT_DESTINATION_R4": "https://fhir.example.org/r4",
        "UPLIFT_DESTINATION_LOGIN": "private_key_jwt",
        "UPLIFT_DESTINATION_CLIENT_ID": "uplift",
        "UPLIFT_DESTINATION_KEY_FILE": str(signs),
        "UPLIFT_DESTINATION_OTHER_KEY_FILE": str(other),
    }.items():
        monkeypatch.setenv(name, value)
    assert orjson.loads(cli("destinations", "jwks").stdout) == {"keys": made}
    other.write_text("")
    assert str(other) in cli("destinations", "jwks", "hapi", code=2).stderr
